"""The HTML page of a report: one file that needs no other, for wide screens and phones, light and dark."""

import base64
import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

from daqu_tf.report import explorer
from daqu_tf.report.run import Member, Run, StoredLayer, number
from daqu_tf.report.text import figure, kilobytes, percent, standard_error, timed_by

_CSS = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2128; --dim: #5b6572; --line: #d4d9e0; --soft: #f4f6f9;
  --blue: #1d5fd1; --bits: 29, 95, 209; --int4: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --page: #15181d; --text: #e3e7ed; --dim: #9aa5b1; --line: #363d47;
  --soft: #1d2127; --blue: #7fb0ff; --bits: 88, 148, 255; --int4: #ff9c66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
.lead { font-size: 1.2rem; line-height: 1.45; margin: .5rem 0 1.2rem; } p { margin: .5rem 0; max-width: 48rem; }
.dim, figcaption, th { color: var(--dim); } figcaption { font-size: .85rem; } figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { font-weight: 500; vertical-align: bottom; } .wide td, .wide th { text-align: right; white-space: nowrap; }
td, th { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; }
td:first-child, th:first-child { text-align: left; overflow-wrap: normal; } a { color: var(--blue); }
.strip { display: flex; flex-wrap: wrap; gap: 2px; margin: .15rem 0; font-size: .7rem; line-height: 1.35rem; }
.strip b { flex: 0 0 3.6rem; font-weight: 400; color: var(--dim); }
.strip i { width: 1.35rem; text-align: center; font-style: normal; border-radius: 3px;
  border-bottom: 3px solid transparent; }
.strip .int4 { border-bottom-color: var(--int4); } .strip .deep { color: #fff; }
.member { margin: 1rem 0; } .member p { margin: 0 0 .3rem; font-size: .9rem; }
.times { display: grid; grid-template-columns: auto 1fr auto; gap: .3rem .8rem; font-size: .9rem; }
.times div { align-self: center; height: .7rem; min-width: 2px; background: var(--blue); border-radius: 2px; }
details { margin: .6rem 0; } summary { cursor: pointer; } code { font-size: .85rem; }
"""


def write(run: Run, fronts: Mapping[str, bytes], latencies: Mapping[str, bytes], curves: Mapping[str, bytes]) -> str:
    """The text of the HTML page.

    Args:
        run: The run that the page shows.
        fronts: The picture of the front as PNG bytes for each theme, `light` and `dark`.
        latencies: The picture of measured over predicted latency for each theme; empty if nothing was predicted.
        curves: The picture of the training curves for each theme; empty if there are none.
    """
    data = run.config.get("dataset") or {}
    title = f"{data.get('name', 'data')} on {run.config.get('target', 'an unnamed target')}"
    playable = explorer.write(run)
    parts = [
        f"<h1>{_text(title)}</h1><p class=lead>{_text(headline(run))}</p>",
        f"<p class=lead><b>{_text(run.starved)}</b></p>" if run.starved else "",
        playable,
        f"<div id=still>{_picture(fronts, 'Accuracy over each cost', _front_caption(run))}</div>",
        _section("The models", _members_table(run)),
        _section("Latency, predicted and measured", _latencies(run, latencies)),
        _section("Bits of each layer", _bits(run)),
        _section("Training", _picture(curves, "Training curves", "") if curves else ""),
        _section("Where the time went", _times(run)),
        _section("Data", _data(run)),
        _section("Search space", _space(run)),
        _section("How to repeat it", _settings(run)),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{_text(title)}</title><style>{_CSS}{explorer.CSS}</style></head>\n'
        f"<body>\n{''.join(parts)}\n{f'<script>{explorer.SCRIPT}</script>' if playable else ''}</body></html>\n"
    )


def headline(run: Run) -> str:
    """The result of a run in one sentence."""
    front = [member for member in run.front if member.test is not None]
    if not front:
        return "No model reached the front."
    best = max(front, key=lambda member: member.test or 0.0)
    small = min(front, key=lambda member: (member.costs.get("latency_us", math.inf), member.costs.get("file_bytes", 0)))
    count = "1 model is" if len(run.front) == 1 else f"{len(run.front)} models are"
    text = f"{count} on the front: {best.name} gets {percent(best.test, 1)} of the test images right{_price(best)}"
    if small is best:
        return f"{text}."
    return f"{text}; {small.name}, the fastest, {percent(small.test, 1)}{_price(small)}."


def _price(member: Member) -> str:
    parts = []
    if "latency_us" in member.costs:
        parts.append(f"in {figure(member.costs['latency_us'])} µs")
    if "file_bytes" in member.costs:
        parts.append(f"with a file of {kilobytes(member.costs['file_bytes'])} kB")
    return f" {' '.join(parts)}" if parts else ""


def _front_caption(run: Run) -> str:
    failed = f" ({run.failed_trials} more failed)" if run.failed_trials else ""
    trials = f"{len(run.trials)} trials{failed}. " if run.trials else ""
    arrows = "Arrows lead from the weights inherited from the supernet to the fine-tuned ones. "
    return (
        f"{trials}Models were chosen on the search split, so it is what is drawn. "
        f"{arrows if any(member.search_inherited is not None for member in run.members) else ''}"
        "Each view shows one cost: a model below the line there may be best in another."
        f"{' The worst trials may lie below the picture.' if run.trials else ''}"
    )


def _members_table(run: Run) -> str:
    heads = (
        "model", "test, file", "test, simulated", "same top-1", "search", "search, inherited",
        "latency, µs", "file, kB", "deflated, kB", "INT4 layers", "mean weight bits",
    )  # fmt: skip
    rows = [_member_row(member) for member in run.members]
    timed = timed_by(run.members)
    note = f"Latency is the median ± half the interquartile range, timed by {timed}." if timed else ""
    doubtful = [f"{member.name} ({', '.join(member.latency_flags)})" for member in run.members if member.latency_flags]
    note += f" Doubtful, even when timed again: {', '.join(doubtful)}." if doubtful else ""
    dominated = "" if len(run.front) == len(run.members) else " Models in brackets are dominated by others."
    card = " How to feed them, from the photo on, is in models/README.md." if any(member.input for member in run.members) else ""
    return f"<div class=wide>{_table(heads, rows)}</div><p class=dim>{_text(note + dominated + card)}</p>"


def _member_row(member: Member) -> list[str]:
    return [
        Markup(f'<a href="models/{_text(member.file)}" download>{_text(_in_table(member))}</a>'),
        percent(member.test_file),
        percent(member.test_fine_tuned if member.test_fine_tuned is not None else member.test_inherited),
        percent(member.top1_agreement),
        percent(member.search),
        percent(member.search_inherited),
        _measured(member),
        kilobytes(member.costs.get("file_bytes")),
        kilobytes(member.costs.get("deflated_bytes")),
        f"{member.int4_layers} of {len(member.layers)}" if member.layers else "–",
        "–" if member.mean_weight_bits is None else f"{member.mean_weight_bits:.1f}",
    ]


def _in_table(member: Member) -> str:
    return member.name if member.on_front else f"({member.name})"


def _latencies(run: Run, pictures: Mapping[str, bytes]) -> str:
    rows = [_latency_row(member, member.predicted_us) for member in run.members if member.predicted_us is not None]
    if not pictures or not rows:
        return ""
    note = (
        "The search priced subnets by a latency table; what it chose was then measured on the device, in turns of random order. "
        "± of the prediction is what 9 of 10 subnets that the table was tried on kept within; ± of the measurement is half "
        "the interquartile range."
    )
    table = _table(("model", "predicted, µs", "measured, µs", "difference"), rows)
    return f"{_picture(pictures, 'Measured over predicted latency', '')}<div class=wide>{table}</div><p class=dim>{_text(note)}</p>"


def _latency_row(member: Member, predicted_us: float) -> list[str]:
    error, measured = member.predicted_error, member.costs.get("latency_us")
    margin = "" if error is None else f" ± {figure(error * predicted_us, 2)}"
    difference = "–" if not measured else f"{100 * (predicted_us / measured - 1):+.1f}%"
    return [member.name, f"{figure(predicted_us)}{margin}", _measured(member), difference]


def _measured(member: Member) -> str:
    latency = member.costs.get("latency_us")
    spread = "" if member.latency_spread_us is None else f" ± {figure(member.latency_spread_us, 2)}"
    return "–" if latency is None else f"{figure(latency)}{spread}"


def _bits(run: Run) -> str:
    strips = [_member_bits(member) for member in run.members if member.layers]
    legend = (
        "One cell a layer, from input to output: the darker, the more bits. A coloured foot marks weights stored as "
        "packed INT4; hold the pointer over a cell for its name."
    )
    return f"<p class=dim>{legend}</p>{''.join(strips)}" if strips else ""


def _member_bits(member: Member) -> str:
    weights = "".join(_cell(layer, layer.weight_bits, layer.container == "INT4") for layer in member.layers)
    known = [(layer, layer.activation_bits) for layer in member.layers if layer.activation_bits is not None]
    # A row of nothing but eights is left out.
    varied = any(bits != 8 for _, bits in known)
    inputs = "".join(_cell(layer, bits, False) for layer, bits in known) if varied else ""
    return (
        f'<div class=member id="bits-{_text(member.name)}"><p><strong>{_text(member.name)}</strong> '
        f"<span class=dim>{_text(member.subnet_text)}</span></p>"
        f"<div class=strip><b>weights</b>{weights}</div>"
        + (f"<div class=strip><b>inputs</b>{inputs}</div>" if inputs else "")
        + "</div>"
    )


def _cell(layer: StoredLayer, bits: int, packed: bool) -> str:
    names = " ".join(name for name, holds in (("int4", packed), ("deep", bits >= 7)) if holds)
    title = f"{layer.name}: {layer.weights} weights of {layer.weight_bits} bits in {layer.container}"
    shade = f"background: rgba(var(--bits), {min(bits, 8) ** 1.5 / 8**1.5 * 0.88 + 0.04:.2f})"
    return f'<i class="{names}" style="{shade}" title="{_text(title)}">{bits}</i>'


def _times(run: Run) -> str:
    total = sum(seconds for _, seconds in run.timeline)
    if not total:
        return ""
    longest = max(seconds for _, seconds in run.timeline)
    rows = "".join(
        f'<span>{_text(stage.replace("_", " "))}</span><div style="width: {100 * seconds / longest:.1f}%"></div>'
        f"<span>{_duration(seconds)}</span>"
        for stage, seconds in run.timeline
    )
    return f"<div class=times>{rows}</div><p class=dim>{_text(f'{_duration(total)} in all. {_plan(run)}')}</p>"


def _plan(run: Run) -> str:
    """What was planned before the run began, as a sentence; empty for runs of before, which had no plan."""
    forecast = run.config.get("forecast")
    if not isinstance(forecast, dict) or not isinstance(forecast.get("minutes"), dict):
        return ""
    stages = {str(name): number(minutes) for name, minutes in forecast["minutes"].items()}
    parts = [f"{name} {minutes:.1f}" for name, minutes in stages.items() if minutes]
    seen = [number(count) for count in forecast.get("images") or ()]
    images = f", which see {' to '.join(f'{count:,.0f}' for count in seen if count)} images each" if any(seen) else ""
    return f"Planned were, in minutes: {', '.join(parts)}; {forecast.get('finalists', '?')} networks at most{images}."


def _data(run: Run) -> str:
    data = run.config.get("dataset") or {}
    counts = [f"{data[split]:,} {split}" for split in ("train", "search", "test") if isinstance(data.get(split), int)]
    text = f"{data.get('name', 'The data set')}: {', '.join(counts)} images in {data.get('num_classes', '?')} classes."
    if data.get("test_was_cut"):
        text += " The source has no test split: the test images were cut from its training images, stratified and seeded."
    return f"<p>{_text(text)} {_text(standard_error(run))}</p>"


def _space(run: Run) -> str:
    count = run.config.get("cardinality") or {}
    text = f"{run.config.get('space', 'The space')} has {count.get('nominal', '?')} subnets"
    text += f", of which {count['effective']} differ on {run.config.get('target')}" if "effective" in count else ""
    flags = run.config.get("flags")
    if isinstance(flags, dict) and flags.get("architectures") == "hand_scaled":
        text += ". None was searched: the minutes were too few for that, and went to networks that people scale by hand"
    return f"<p>{_text(text)}.</p>"


def _settings(run: Run) -> str:
    named = {"flags": run.config.get("flags"), "versions": run.config.get("versions")}
    tables = [
        f"<details{' open' if name == 'flags' else ''}><summary>{name}</summary>{_table((), value.items())}</details>"
        for name, value in named.items()
        if isinstance(value, dict)
    ]
    return f"<p>Seed {_text(run.config.get('seed', '?'))}.</p>{''.join(tables)}"


def _section(title: str, content: str) -> str:
    return f"\n<section><h2>{title}</h2>{content}</section>" if content else ""


def _picture(themes: Mapping[str, bytes], alt: str, caption: str) -> str:
    source = {theme: f"data:image/png;base64,{base64.b64encode(data).decode()}" for theme, data in themes.items()}
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{source["dark"]}">'
        f'<img alt="{alt}" src="{source["light"]}"></picture><figcaption>{_text(caption)}</figcaption></figure>'
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


class Markup(str):
    """A text that is HTML already."""


def _text(value: Any) -> str:
    return value if isinstance(value, Markup) else html.escape(str(value))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
