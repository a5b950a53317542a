"""`maskrcnn`: parses, calls one function, prints. Decides nothing, and imports no engine before it must.

Exit codes: 0 done; 1 a data set has errors, or the loss is no number any more; 2 wrong usage; 3 a package or device is
missing; 4 a configuration, data set, checkpoint, artifact or run cannot be used; 5 a picture cannot be used; 6 the
output cannot be written; 130 and 143 training or predicting was interrupted by Ctrl-C or SIGTERM, and can go on.
"""

import typer

from maskrcnn.commands import data
from maskrcnn.commands.evaluate import evaluate
from maskrcnn.commands.inspect import inspect
from maskrcnn.commands.predict import predict
from maskrcnn.commands.train import train

app = typer.Typer(
    help="Train, evaluate, use and look into a Mask R-CNN.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
for _command in (train, evaluate, predict, inspect):
    app.command()(_command)
app.add_typer(data.app, name="data")
