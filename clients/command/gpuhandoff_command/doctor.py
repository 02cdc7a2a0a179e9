"""`gpuhandoff doctor`: everything that stands, or could stand, in the way, the worst first."""

from __future__ import annotations

from typing import Any

from gpuhandoff_command.connection import Connection, plain
from gpuhandoff_command.exits import CallError, Exit, status_of
from gpuhandoff_command.hook_checks import Check, look
from gpuhandoff_command.sentences import sentence, translate
from gpuhandoff_command.terminal import Terminal, clean

ORDER = ("problem", "warning", "note", "fine")
_WORDS = {"problem": ("!!", "bad"), "warning": ("! ", "warn"), "note": ("- ", "dim"), "fine": ("ok", "good")}
Finding = dict[str, Any]


async def diagnose(terminal: Terminal, *, ask: bool) -> int:
    """Ask the daemon, look at libvirt's hook, show what is found; the exit status is that of the worst."""
    findings = [*await _from_daemon(ask=ask), *(_from_check(check) for check in look())]
    return show_findings(terminal, findings)


def show_findings(terminal: Terminal, findings: list[Finding]) -> int:
    """Show findings and return the exit status: 1 for a problem, 8 for a warning, 0 for nothing worse than a note."""
    findings = sorted(findings, key=lambda one: ORDER.index(one["severity"]))
    problems, warnings = (sum(one["severity"] == kind for one in findings) for kind in ORDER[:2])
    terminal.value({"findings": findings, "problems": problems, "warnings": warnings})
    for finding in findings:
        _show(terminal, finding)
    terminal.line()
    terminal.line(_summary(problems, warnings))
    return Exit.FAILED if problems else Exit.WARNED if warnings else Exit.DONE


async def _from_daemon(*, ask: bool) -> list[Finding]:
    """Return what the daemon finds; that it cannot be asked is a finding as well."""
    try:
        connection = await Connection.open(ask=ask)
        try:
            return list(plain(await connection.manager("Diagnose", timeout=None)))
        finally:
            await connection.close()
    except CallError as error:
        if status_of(error.name) is Exit.DENIED:
            what = "The machine itself was not looked at: you may not see what gpuhandoffd knows of it."
            remedy = "Run it with sudo, or in a session at the machine."
            return [_finding("warning", "daemon", what, sentence(error), remedy)]
        return [_finding("problem", "daemon", "gpuhandoffd could not be asked.", sentence(error))]


def _from_check(check: Check) -> Finding:
    severity = {True: "fine", False: "problem", None: "note"}[check.fine]
    return _finding(severity, f"libvirt-{check.name}", check.message)


def _finding(severity: str, check: str, what: str, evidence: str = "", remedy: str = "") -> Finding:
    return {"severity": severity, "check": check, "gpu": "", "what": what, "evidence": evidence, "remedy": remedy}


def _show(terminal: Terminal, finding: Finding) -> None:
    word, colour = _WORDS[finding["severity"]]
    where = f"{clean(finding['gpu'])}  " if finding["gpu"] else ""
    terminal.line(f"{terminal.paint(word, colour)}  {where}{clean(finding['what'])}")
    if finding["severity"] == "fine":
        return
    if finding["evidence"]:
        terminal.line(f"    {terminal.paint(clean(finding['evidence']), 'dim')}")
    if finding["remedy"]:
        terminal.line(f"    {terminal.sign('arrow')} {translate(clean(finding['remedy']))}")


def _summary(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "Nothing stands in the way."
    counted = [
        f"{count} {word}{'s' * (count > 1)}" for count, word in ((problems, "problem"), (warnings, "warning")) if count
    ]
    return f"{' and '.join(counted)}."
