"""What is said of a run, JSON-ready: by the command line, and by the console."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.rounds.runs import KeptRun


def run_document(run: KeptRun, used: KeptRun | None, erased_since: Callable[[str], Iterable[str]]) -> dict[str, Any]:
    """Return what is said of a run where sites answer from the run `used`, None from none.

    `erased_since` returns the requests that have erased what weights of `exact`, by their digest, were solved with.
    """
    last: Mapping[str, Any] = run.rounds[-1] if run.rounds else {}
    solved = run.guarantee is Guarantee.EXACT and bool(run.digest)
    return {
        "run": run.name,
        "started": run.started,
        "guarantee": run.guarantee.value,
        "state": run.state.value,
        "reason": run.reason,
        "gives_out": run.gives_out or None,
        "in_use": used is not None and used.name == run.name,
        "rounds": len(run.rounds),
        "digest": run.digest or None,
        "weights": None if run.weights is None else str(run.weights),
        "solved_with_deleted": list(erased_since(run.digest)) if solved else [],
        "sites": list(last.get("sites", [])),
        "failures": dict(last.get("failures", {})),
        "mean": dict(last.get("mean", {})),
        "figures": {
            site: {**last.get("training", {}).get(site, {}), **last.get("evaluation", {}).get(site, {})}
            for site in sorted({*last.get("training", {}), *last.get("evaluation", {})})
        },
        "classes": dict(last.get("classes", {})),
    }
