"""The `sluicegate` command: one module per verb."""

import typer

from limiter_service.cli.breakers import breakers
from limiter_service.cli.check_config import check_config
from limiter_service.cli.demo import demo
from limiter_service.cli.keys import keys
from limiter_service.cli.provider_sim import provider_sim
from limiter_service.cli.serve import serve

app = typer.Typer(
    name="sluicegate",
    help="One exact budget of requests, tokens and money for every worker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(demo)
app.command(name="check-config")(check_config)
app.command(name="provider-sim")(provider_sim)
app.add_typer(breakers)
app.add_typer(keys)
