"""Two things that cosmic-ray lacks: an operator that leaves out a statement, and which places are annotations."""

import ast

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Keyword

# What a name is first bound to is needed by what follows: leaving it out is an error that any test notices.
_NEEDED = ("string", "import_name", "import_from", "global_stmt", "nonlocal_stmt")


class LeaveOutStatement(Operator):
    """`pass` instead of a call, raise, return, or a change of what is there already, inside a function."""

    def mutation_positions(self, node):
        """The statement, if it is one of those."""
        if node.type == "simple_stmt" and _inside_function(node) and _may_go(node.children[0]):
            yield node.start_pos, node.children[0].end_pos

    def mutate(self, node, index):
        """Put `pass` in its place."""
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, prefix=statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls):
        """As the base class asks for."""
        return (Example("def f(a):\n    a += 1\n", "def f(a):\n    pass\n"),)


def _inside_function(node):
    while node is not None and node.type != "funcdef":
        node = node.parent
    return node is not None


def _may_go(statement):
    if statement.type in _NEEDED or (statement.type == "keyword" and statement.value == "pass"):
        return False
    if statement.type != "expr_stmt":
        return True
    target, sign = statement.children[0], statement.children[1]
    return getattr(sign, "value", "") != "=" or target.type == "atom_expr"


class Annotations:
    """The annotations of a module; breaking one breaks nothing that runs, or the import."""

    def __init__(self, source):
        self._spans = []
        for node in ast.walk(ast.parse(source)):
            for name in ("annotation", "returns"):
                if getattr(node, name, None) is not None:
                    self._add(getattr(node, name))

    def _add(self, node):
        self._spans.append(((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)))

    def __contains__(self, position):
        """Whether a (line, column) lies in one."""
        return any(begin <= position < end for begin, end in self._spans)
