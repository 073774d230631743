"""The model card of a run folder: what was trained on what, how well it does, and what it is not for.

Its sections are those of Mitchell et al., FAccT 2019. It names no patient, file or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ctpatch.store import markdown, markdown_table

from .tables import FLOW, reasons, run_name, tables

USE = """\
For research on the method; not a medical device, and not for decisions about patients.

It classifies a lesion that somebody has already found and marked on CT, from patches cut as this store's were
(`mtltrain predict` refuses other windows and other classes). It does not find lesions, and says nothing of lesions,
scanners, protocols and patients unlike those of the training data: see `data_card.md`."""

LIMITS = """\
- The intervals say how much depends on which lesions were tested, not how another training run or another hospital
  would differ: this is a test on held-out patients of the same store, not an external validation.
- The epoch kept and the operating point were chosen on the validation lesions; test lesions took no part in any choice.
- Groups of patients (sex, age, origin, scanner) were not compared: a store does not know them."""

SETTINGS = ("epochs", "patience", "batch_size", "lr", "balanced", "deterministic", "seeds", "device")


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Write a run folder's model card in Markdown.

    Parameters
    ----------
    config, metrics : mappings
        `config.json` and `metrics.json` of the folder.
    """
    results = {title: _markdown(table) for title, table in tables(metrics).items()}
    flow = results.pop(FLOW, "")
    versions = [", ".join(f"{name} {version}" for name, version in entry.items()) for entry in config["versions"]]
    sections = {
        "Model": markdown_table(_model(config, metrics)),
        "Intended use": USE,
        "Data": f"The store of sha256 `{config['store_sha256']}`.\n\n{flow}".rstrip(),
        "Training": markdown_table([{"name": name, "value": _listed(config[name])} for name in SETTINGS]),
        "Results": "\n\n".join(f"### {markdown(title)}\n\n{table}" for title, table in results.items()),
        "How they were found": "\n".join(f"- {name}: {method}" for name, method in metrics["methods"].items()),
        "Limits": "\n".join([LIMITS, *(f"- Undefined: {markdown(reason)}." for reason in reasons(metrics))]),
        "Made with": "\n".join(f"- {line}" for line in versions),
    }
    text = "\n\n".join(f"## {title}\n\n{part}" for title, part in sections.items())
    return f"# Model card\n\n{text}\n"


def _model(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = [f"{row['name']} (|r| {abs(row['r']):.2f})" for row in metrics["selection"] if row["kept"]]
    if config["chosen_tasks"]:
        kept = [
            f"{name} (weight {'|r|' if w is None else format(w, 'g')})" for name, w in config["chosen_tasks"].items()
        ]
    multi = any(run.startswith("mtl") for run in metrics["runs"])
    mean, std = config["normalisation"]
    facts = {
        "architectures": ", ".join(map(run_name, metrics["runs"])),
        "backbone": config["backbone"],
        "pre-trained weights of TL": _weights(config) if any(run.endswith("tl") for run in metrics["runs"]) else "none",
        "classes": ", ".join(metrics["classes"]),
        "positive class": metrics["positive"] or "each against the rest",
        "auxiliary tasks of MTL": (", ".join(kept) if multi else "") or "none",
        "input": f"64 × 64 patches in HU, shown at 224 × 224 by the windows {config['windows']}, mean {mean}, SD {std}",
        "output": "probability of each class, averaged over a lesion's patches",
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def _weights(config: Mapping[str, Any]) -> str:
    """Their publisher's name, or a file's digest without its name."""
    told: str = config["tl_weights"]
    if " sha256 " not in told:
        return told
    return f"a file of sha256 {told.rpartition(' ')[2]}; whether it has seen patients tested here is not known"


def _markdown(table: pd.DataFrame) -> str:
    return markdown_table([{"name": name, **{str(k): v for k, v in row.items()}} for name, row in table.iterrows()])


def _listed(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
