"""`volsurf fit CHAIN.csv`: a static chain to forwards, fits, certificates and a ledger, on the terminal and as a page."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from volsurf.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from volsurf.diagnostics.quality import Report
    from volsurf.diagnostics.reasons import Ledger
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.slices import Smile
    from volsurf.surface.surface import Surface

_PARAMETERS = ("a", "b", "rho", "m", "sigma")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("chain", metavar="CHAIN.csv", type=Path, help="option quotes, one row each; plain or gzip")
    parser.add_argument("--underlying", help="only this one, e.g. BTC")
    parser.add_argument(
        "--no-enforce",
        action="store_true",
        help="publish what the quotes alone give, arbitrage and all, and say where it is",
    )
    parser.add_argument(
        "--model",
        choices=("svi", "ssvi", "essvi"),
        default="svi",
        help="family of curves: svi has five numbers an expiry, the other two three and are free of arbitrage by construction",
    )
    parser.add_argument(
        "--html", metavar="REPORT.html", type=Path, help="write a page with figures, complete in itself"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.epilog = (
        "Columns: underlying, expiry, strike, option_type, bid, ask, settlement, time; forward, venue, discount, mark, mark_vol, "
        "index, tick_size and others if there are. See volsurf.Chain."
    )


def run(args: argparse.Namespace) -> int:
    """Fit, print, and write the page; `InputError` where the file is no chain or nothing in it can be fitted."""
    started = time.perf_counter()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that knows no "±" shall show a question mark, not end the command.
        sys.stdout.reconfigure(errors="replace")
    if args.html is not None and not args.html.parent.is_dir():
        raise InputError(f"no directory {args.html.parent} to write {args.html.name} to")
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(highlight=False)
    bar = Console(stderr=True)
    stages = 4 + (args.html is not None)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:28}"),
        BarColumn(bar_width=32),
        TimeElapsedColumn(),
        console=bar,
        transient=True,
        disable=not bar.is_terminal,
    ) as progress:
        task = progress.add_task(f"reading {args.chain.name}", total=stages)

        def next_stage(description: str) -> None:
            progress.update(task, advance=1, description=description)

        from volsurf.surface.chain import Chain, nothing_to_fit

        chain = Chain.from_csv(args.chain)
        if args.underlying is not None:
            chain = chain.select(args.underlying)
        next_stage("forwards and implied vols")
        quotes = chain.quote_vols()
        next_stage("fitting")
        from volsurf.surface.smile import build_smiles, fit_all_smiles

        surfaces = fit_all_smiles(build_smiles(quotes), enforce=not args.no_enforce, model=args.model)
        if not surfaces:
            raise InputError(nothing_to_fit(quotes))
        next_stage("diagnosing")
        from volsurf.diagnostics.quality import diagnose, whole_ledger

        reports = {name: diagnose(surface, quotes) for name, surface in surfaces.items()}
        ledger = whole_ledger(surfaces.values(), quotes)
        if args.html is not None:
            next_stage(f"writing {args.html.name}")
            from volsurf.surface.report import report_html

            try:
                args.html.write_text(report_html(surfaces, quotes, title=args.chain.name), encoding="utf-8")
            except OSError as error:
                raise InputError(f"{args.html} cannot be written: {error.strerror}") from error
        progress.update(task, advance=1)
    for name, surface in surfaces.items():
        _print_surface(console, surface, reports[name], quotes)
    _print_ledger(console, ledger)
    if args.html is not None:
        console.print(f"\npage written to [bold]{escape(str(args.html))}[/] ({args.html.stat().st_size / 1e6:.1f} MB)")
    if args.json:
        print(json.dumps(_figures(surfaces, reports, ledger, quotes, time.perf_counter() - started)))
    return 0


def _print_surface(console: Console, surface: Surface, report: Report, quotes: QuoteVols) -> None:
    from rich.markup import escape

    from volsurf.diagnostics.trouble import attention
    from volsurf.surface.html import utc

    certificate = surface.certificate
    console.rule(f"[bold]{escape(surface.underlying)}[/]  {utc(surface.time_ns)}", align="left")
    console.print(_forwards(surface, quotes))
    console.print(_fits(surface))
    console.print(_parameters(surface))
    console.print(_certificates(surface))
    colour = "green" if certificate else "red"
    console.print(f"[{colour}]{certificate.sentence}[/]")
    if any(smile.fit is not None and smile.fit.enforcement for smile in surface.smiles):
        console.print(_price(surface))
    for text in attention(surface.smiles):
        console.print(f"[red]{text}[/]")
    _print_notes(console, report)


def _print_notes(console: Console, report: Report) -> None:
    """What to know of each expiry, under one another where a line is too short for it."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(justify="right", no_wrap=True, style="yellow")
    table.add_column()
    for s in report.slices:
        # How the fit ended is news where it did not end as it should, and has not been said already.
        told = s.result in ("fitted", "not fitted") or any(n.startswith(("thin", "kept", "synthetic")) for n in s.notes)
        ended = () if told else (s.result,)
        for note in (*ended, *s.notes):
            table.add_row(s.label, note)
    if table.row_count:
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        left = column in ("source", "no arbitrage", "witness", "butterfly", "calendar", "reason", "meaning")
        # What carries the news keeps its width; a terminal too narrow folds the sentences.
        table.add_column(
            column, justify="left" if left else "right", no_wrap=column not in ("source", "witness", "meaning")
        )
    return table


def _forwards(surface: Surface, quotes: QuoteVols) -> Table:
    from volsurf.iv.forward import ForwardSource
    from volsurf.surface.html import days
    from volsurf.surface.slices import expiry_label

    table = _table("Forwards", "expiry", "days", "forward", "parity", "bp", "se bp", "strikes", "source")
    years = {s.expiry_ns: s.years for s in surface.smiles}
    for f in quotes.forwards:
        if f.underlying != surface.underlying or f.expiry_ns not in years:
            continue
        mark = "[red]⚑[/] " if f.flagged else ""
        table.add_row(
            expiry_label(f.expiry_ns),
            days(years[f.expiry_ns]),
            f"{f.forward:,.2f}",
            _number(f.parity_forward, ",.2f"),
            mark + _number(f.mismatch_bp, "+.1f"),
            _number(1e4 * f.standard_error / f.forward, ".1f"),
            str(f.pairs),
            ForwardSource(f.source).name.lower(),
        )
    return table


def _fits(surface: Surface) -> Table:
    from volsurf.diagnostics.trouble import Trouble

    # How a fit ended is among the notes below, where it is not simply "fitted": sentences have no place in 80 columns.
    table = _table("Fits", "expiry", "atm vol", "± se", "quotes", "inside", "rms", "no arbitrage", "move bp")
    for smile in surface.smiles:
        fit = smile.fit
        if fit is None:
            table.add_row(smile.expiry_label, *["–"] * 5, "not fitted", "–")
            continue
        trouble = Trouble.of(fit)
        table.add_row(
            smile.expiry_label,
            f"{smile.atm_vol:.2%}",
            _number(fit.atm_error, ".2%"),
            str(fit.n_used),
            _number(fit.inside, ".1%"),
            _short(fit.rms, 2),
            f"[red]{trouble.label}[/]" if trouble else fit.enforcement_label,
            _short(1e4 * fit.move, 1),
        )
    return table


def _price(surface: Surface) -> str:
    """What it took to be free of arbitrage, in a sentence."""
    fits = [smile.fit for smile in surface.smiles if smile.fit is not None and smile.fit.enforcement]
    moved = [fit for fit in fits if fit.move > 1e-7]
    if not moved:
        return "its quotes allow that as they are: no curve was moved"
    fitted = sum(fit.fitted_cost for fit in fits if not math.isnan(fit.fitted_cost))
    price = sum(fit.price_of_no_arbitrage for fit in fits if not math.isnan(fit.price_of_no_arbitrage))
    largest = max(fit.move for fit in moved)
    guarded = sum(fit.is_guarded for fit in fits)
    forced = f"; {guarded} by force, not to be quoted on" if guarded else ""
    return (
        f"{len(moved)} of {len(fits)} curves were moved for it, by at most {1e4 * largest:.1f} bp of vol at their quotes; "
        f"misfit {fitted:.1f} became {fitted + price:.1f}{forced}"
    )


def _parameters(surface: Surface) -> Table:
    # A table of its own: beside the figures of the fit it would not go into 80 columns, and rich would cut every number.
    table = _table("Raw SVI, w(k) = a + b (rho (k - m) + sqrt((k - m)² + sigma²))", "expiry", *_PARAMETERS)
    for smile in surface.smiles:
        if smile.fit is not None:
            numbers = (getattr(smile.fit, name) for name in _PARAMETERS)
            table.add_row(smile.expiry_label, *(f"{number:+.7f}" for number in numbers))
    return table


def _certificates(surface: Surface) -> Table:
    table = _table("Certificates", "expiry", "butterfly", "calendar", "witness")
    for smile in surface.smiles:
        if smile.fit is not None:
            table.add_row(smile.expiry_label, *(_verdict(v) for v in _verdicts(smile)), _witness(smile))
    return table


def _verdicts(smile: Smile) -> tuple[int, int]:
    assert smile.fit is not None
    return smile.fit.butterfly_verdict, smile.fit.calendar_verdict


def _witness(smile: Smile) -> str:
    """Where the nearest miss is, or what is wrong where something is."""
    fit = smile.fit
    assert fit is not None
    if not fit.is_certified:
        return fit.failure_sentence
    closest = f"lowest g {fit.butterfly_worst_value:.4f} at k = {fit.butterfly_worst_k:+.3f}"
    if math.isnan(fit.calendar_worst_k):
        return closest
    return f"{closest}; smallest gain {fit.calendar_worst_value:.2e} at k = {fit.calendar_worst_k:+.3f}"


def _verdict(value: int) -> str:
    from volsurf.svi.certificate import Verdict

    verdict = Verdict(value)
    colour = {Verdict.PROVED: "green", Verdict.VIOLATED: "red"}.get(verdict, "yellow")
    return f"[{colour}]{verdict.name.lower()}[/]"


def _print_ledger(console: Console, ledger: Ledger) -> None:
    table = _table("Ledger", "rows", "reason", "meaning")
    table.show_footer = True
    for reason, count in ledger.counts.items():
        meaning = reason.sentence
        if reason == 0 and ledger.one_sided:
            meaning += f"; {ledger.one_sided:,d} of them one-sided, which only bound the curve"
        table.add_row(f"{count:,d}", f"[green]{reason.label}[/]" if reason.is_used else reason.label, meaning)
    table.columns[0].footer = f"{ledger.rows:,d}"
    table.columns[1].footer = "rows in the file"
    console.print(table)


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _short(value: float, decimals: int) -> str:
    """Whole numbers from a hundred up, so that a wild one does not widen its column."""
    return _number(value, f".{decimals if abs(value) < 100 else 0}f")


def _figures(
    surfaces: dict[str, Surface], reports: dict[str, Report], ledger: Ledger, quotes: QuoteVols, seconds: float
) -> dict[str, object]:
    from volsurf.diagnostics.trouble import is_off_quotes

    certificates = [s.certificate for s in surfaces.values()]
    fits = [smile.fit for s in surfaces.values() for smile in s.smiles if smile.fit is not None]
    two_sided = sum(f.n_two_sided for f in fits)
    holding = sum(f.inside * f.n_two_sided for f in fits if f.n_two_sided)
    figures: dict[str, object] = {
        "rows": ledger.rows,
        "rows_used": ledger.used,
        "underlyings": len(surfaces),
        "expiries_listed": len(quotes.forwards),
        "expiries_fitted": len(fits),
        "slices_certified": sum(c.certified for c in certificates),
        "butterfly_proved": sum(c.butterfly_proved for c in certificates),
        "calendar_proved": sum(c.calendar_proved for c in certificates),
        "slices_moved": sum(f.enforcement >= 2 for f in fits),
        "slices_guarded": sum(f.is_guarded for f in fits),
        "slices_off_quotes": sum(is_off_quotes(f) for f in fits),
        "model": fits[0].model if fits else "svi",
        "inside_percent": round(100 * holding / two_sided, 3) if two_sided else None,
        "forwards_flagged": sum(s.forward_flagged for surface in surfaces.values() for s in surface.smiles),
        "seconds": round(seconds, 3),
    }
    figures |= {f"ledger_{reason.name.lower()}": n for reason, n in ledger.counts.items()}
    for name, surface in surfaces.items():
        inside = reports[name].inside
        figures[f"{name}_inside_percent"] = None if math.isnan(inside) else round(100 * inside, 3)
        if surface.years[-1] * 2 >= 30 / 365:
            figures[f"{name}_atm_vol_30d"] = round(float(surface.vol(k=0, years=30 / 365)), 6)
    return figures
