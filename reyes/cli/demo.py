"""`reyes demo`: see it work, on this machine and without any account."""

import sys

import click


@click.command("demo", short_help="Watch real packets being accepted and dropped.")
@click.option("--verbose", is_flag=True, help="Show what the commands print.")
@click.option("--isolated", is_flag=True, hidden=True)
def command(verbose: bool, isolated: bool) -> None:
    """Send real packets through real rules, made from a simulated EC2.

    Everything happens in namespaces of this process: no account is used, nothing outside is
    touched, and nothing is left behind. Exit code 0 means that every packet met the fate that
    the groups foresee.
    """
    from reyes.demo.isolation import check_tools, reyes_command, run_isolated

    if isolated:
        from reyes.demo.run import run

        sys.exit(0 if run(verbose=verbose) else 1)
    check_tools()
    try:
        status = run_isolated(reyes_command("demo", "--isolated", *["--verbose"] * verbose))
    except KeyboardInterrupt:
        status = 130  # the other half has said that it was interrupted
    sys.exit(status)
