"""The `sluicegate` command: one module per verb."""

import typer

from limiter_service.cli.bench import bench
from limiter_service.cli.breakers import breakers
from limiter_service.cli.check_config import check_config
from limiter_service.cli.config import config
from limiter_service.cli.demo import demo
from limiter_service.cli.doctor import doctor
from limiter_service.cli.events import events
from limiter_service.cli.explain import explain
from limiter_service.cli.fleet import drain, log_level, replicas, undrain
from limiter_service.cli.keys import keys
from limiter_service.cli.limits import limits
from limiter_service.cli.provider_sim import provider_sim
from limiter_service.cli.queue import queue
from limiter_service.cli.serve import serve
from limiter_service.cli.simulate import simulate
from limiter_service.cli.stats import stats
from limiter_service.cli.status import status
from limiter_service.cli.top import top

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
app.command()(status)
app.command()(top)
app.command()(explain)
app.command()(simulate)
app.command()(doctor)
app.command()(bench)
app.command()(queue)
app.command()(stats)
app.command()(events)
app.command()(replicas)
app.command()(drain)
app.command()(undrain)
app.command(name="log-level")(log_level)
app.add_typer(breakers)
app.add_typer(keys)
app.add_typer(limits)
app.add_typer(config)
