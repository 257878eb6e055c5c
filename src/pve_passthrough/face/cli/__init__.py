"""The command line: words in, a verb called, an exit code out.

1. A verb's module is loaded when the verb is used: `check` is a glance, so nothing else may cost time.
2. Data goes to standard output, progress and questions to standard error.
3. Every failure leaves as four parts (reference, what happened, context, hint) and with its exit code.
4. What others wrote (a device's name, a file's, a program's words) is printed only through `printable`.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from ... import __version__
from ...errors import Exit, Failure
from ...host.base import HostError
from ..printable import printable

VERBS: tuple[tuple[str, str, str], ...] = (
    ("check", "looking", "Readiness of this host, of devices, or of a guest."),
    ("devices", "looking", "All PCI and USB devices: groups, drivers, who uses what."),
    ("explain", "looking", "The page of a rule, or of a cause that diagnose names."),
    ("capture", "looking", "Record this host into a redacted file that replays anywhere."),
    ("plan", "changing", "What would be changed to give devices to a guest, as diffs."),
    ("apply", "changing", "Run a plan."),
    ("up", "changing", "check + plan + confirm + apply + reboot + verify."),
    ("resume", "changing", "Bring an unfinished run to its end, forward or back."),
    ("undo", "changing", "Take a run back to the byte."),
    ("status", "changing", "The runs on this host and how far they came."),
    ("vm", "guests", "Make guests that are fit for devices."),
    ("lifecycle", "lifecycle", "What works for a guest with devices: backups, snapshots, migration, HA."),
    ("verify", "proving", "Prove, rung by rung, that a guest has its devices."),
    ("diagnose", "diagnosing", "Name the cause of a trouble, with the lines that prove it."),
    ("display", "screen", "Make the card the guest's only display, once somebody gets in without it."),
    ("rom", "roms", "Option ROMs: check, fix, dump, install."),
    ("reset", "resets", "How a device is reset: look, choose a way, prove it by stopping and starting."),
    ("vgpu", "vgpus", "Share one device between guests: mediated devices, NVIDIA vGPU, GVT-g."),
    ("bars", "bars", "Memory windows of a device: sizes, what a guest sees, another size at boot."),
    ("sriov", "sriov", "Virtual functions: one card for several guests, now and at every start."),
    ("usb", "usb", "USB devices: the tree and its users; single devices for guests, running ones too."),
    ("lxc", "lxc", "Share the host's devices with containers: list, add, remove, check."),
    ("mapping", "mappings", "Resource mappings: look, make, check, repair, delete, and who may use them."),
    ("reassign", "drift", "Let a guest's configuration follow a card that has moved."),
    ("hook", "hooking", ""),
    ("inside", "inside", "What a Linux guest installs to use its card: in words, as a script, as cloud-init."),
    ("sim", "simulating", "Make and drive a simulated host."),
    ("completion", "completing", "Shell completion for bash, zsh or fish."),
)


class Verbs(click.Group):
    """Verbs by the literal table above, each from its module, loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _, _ in VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = next((module for name, module, _ in VERBS if name == cmd_name), None)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(f".{module}", __name__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, help_text) for name, _, help_text in VERBS if help_text])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--host",
    "host_spec",
    default="local",
    show_default=True,
    metavar="HOST",
    help="local, root:DIR (a tree, read only), capture:FILE, or sim:DIR.",
)
@click.version_option(__version__, "--version", prog_name="pve-passthrough")
@click.pass_context
def cli(ctx: click.Context, host_spec: str) -> None:
    """Give a physical device to a Proxmox VE guest, prove that it works, and take it back."""
    ctx.obj = host_spec


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        result: Any = cli.main(argv, prog_name="pve-passthrough", standalone_mode=False)
    except Failure as failure:
        _show_failure(failure)
        return int(failure.code)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.Abort:
        click.echo("\nStopped; nothing more was changed.", err=True)
        return int(Exit.COULD_NOT)
    except click.ClickException as error:
        error.show()
        return int(Exit.USAGE)
    except BrokenPipeError:
        return int(Exit.FINE)
    except HostError as error:
        _show_failure(Failure("host.no-answer", f"The host did not answer: {error}.", hint="pve-passthrough status"))
        return int(Exit.COULD_NOT)
    except OSError as error:
        _show_failure(Failure("output.failed", f"The answer could not be written: {error.strerror or error}."))
        return int(Exit.COULD_NOT)
    return int(result) if isinstance(result, int) else int(Exit.FINE)


def _show_failure(failure: Failure) -> None:
    problem = failure.problem
    click.secho(f"{printable(problem.ref)}: ", err=True, nl=False, fg="red", bold=True)
    click.echo(printable(problem.message), err=True)
    for row in "\n".join(problem.context).split("\n") if problem.context else ():
        click.echo(f"    {printable(row)}", err=True)
    if problem.hint:
        click.secho("  → ", err=True, nl=False, fg="cyan")
        click.echo(printable(problem.hint), err=True)
