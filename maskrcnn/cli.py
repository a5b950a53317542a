"""`maskrcnn`: parses arguments, calls one function, prints the result. Imports no engine before it is needed.

Exit codes: 0 done; 1 a dataset has errors, the loss is not finite, or a batch lacks or doubles rows; 2 wrong usage;
3 a package, device or cluster is missing; 4 a configuration, dataset, checkpoint, artifact or run cannot be used; 5 an
image cannot be used; 6 the output cannot be written; 7 another machine of a training run is gone; 130 and 143 the run
was interrupted by Ctrl-C or SIGTERM, and can be resumed.
"""

from typer import Typer

from maskrcnn.commands import config, data, weights
from maskrcnn.commands.evaluate import evaluate
from maskrcnn.commands.inspect import inspect
from maskrcnn.commands.predict import predict
from maskrcnn.commands.results import results
from maskrcnn.commands.serve import serve
from maskrcnn.commands.shared import Version
from maskrcnn.commands.train import train

app = Typer(no_args_is_help=True, pretty_exceptions_show_locals=False, add_completion=False)


@app.callback()
def main(version: Version = False) -> None:
    """Train, evaluate, run, serve and inspect a Mask R-CNN."""


for _command in (train, evaluate, predict, results, serve, inspect):
    app.command()(_command)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
