"""`maskrcnn`: parses arguments, calls one function, prints the result. Imports no engine before it is needed.

Exit codes: 0 done; 1 a parity check failed, lower precision costs too much, a dataset has errors, the loss is not
finite, or a batch lacks or doubles rows; 2 wrong usage; 3 a package, device or cluster is missing, or the doctor found
a problem; 4 a configuration, dataset, checkpoint, artifact or run cannot be used; 5 an image cannot be used; 6 the
output cannot be written; 7 another machine of a training run is gone; 130 and 143 the run was interrupted by Ctrl-C or
SIGTERM, and can be resumed.
"""

from collections.abc import Callable, Mapping

from export.cli import ENVIRONMENT, FORMATS, TOOLS
from maskrcnn.commands import config, data, weights
from maskrcnn.commands.app import App
from maskrcnn.commands.evaluate import evaluate
from maskrcnn.commands.inspect import inspect
from maskrcnn.commands.predict import predict
from maskrcnn.commands.results import results
from maskrcnn.commands.serve import serve
from maskrcnn.commands.shared import Version
from maskrcnn.commands.train import train

app = App()


@app.callback()
def main(version: Version = False) -> None:
    """Train, evaluate, run, serve, inspect and export a Mask R-CNN."""


_formats = App(help="Export a checkpoint, or write an artifact for a server.")
for _name, _function in FORMATS.items():
    _formats.command(_name)(_function)
_PANELS: dict[str, Mapping[str, Callable[..., None] | App]] = {
    "Train and measure": {"data": data.app, "train": train, "evaluate": evaluate, "inspect": inspect},
    "Use": {"predict": predict, "results": results, "serve": serve},
    "Export": {"export": _formats, **TOOLS},
    "Weights and configurations": {"weights": weights.app, "config": config.app},
    "Environment": ENVIRONMENT,
}
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, App):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)
