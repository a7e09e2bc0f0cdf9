"""What is measured of a site and of its predictions, read where programs serve it; and what is watched."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.commands.serve_predictions import PREDICTIONS_READY
from fedmunkey.client.deletions.lineage.exported_models import ExportRegister, describe
from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, RENEW_WITHIN
from fedmunkey.client.deletions.site_metrics import SiteCollector, site_registry
from fedmunkey.client.predicting.prediction_metrics import PredictionMeter
from fedmunkey.client.predicting.warm_predictor import Asked, WarmPredictor
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.service.metrics_service import served_registry
from tests.client.conftest import Encode, Make, MakeRecords, train
from tests.patience import PATIENCE

from .conftest import SITE, Federation, Run, catch_up

DEPLOY = Path(__file__).parents[3] / "deploy"


def read(address: str) -> dict[str, float]:
    text = httpx.get(f"http://{address}/metrics", trust_env=False).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def of(folder: SiteFolder) -> dict[str, float]:
    samples = [sample for metric in SiteCollector(folder).collect() for sample in metric.samples]
    return {
        sample.name.removeprefix("fedmunkey_site_") + "".join(sample.labels.values()): sample.value
        for sample in samples
    }


@contextmanager
def program(*words: object) -> Iterator[str]:
    """Run a program of a site until the body ends, which is given its first line."""
    typed = own_program("fedmunkey.client.cli", *map(str, words))
    with subprocess.Popen(typed, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own program)
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
            assert process.returncode == 0


def metrics_of(line: str) -> str:
    found = re.search(r"metrics at (127\.0\.0\.1:\d+)$", line.strip())
    assert found, line
    return found[1]


def test_site_is_measured_where_its_agent_serves_that(run: Run, federation: Federation) -> None:
    site = federation.site(SITE)
    with program("agent", "--site-dir", site.path, "--service", federation.service, "--metrics", 0) as line:
        before = read(metrics_of(line))
        run(*federation.officer, "--subject", "scan-patient-0", "--request-id", "request-1", "--wait", 0)
        deadline = time.monotonic() + PATIENCE
        while (after := read(metrics_of(line)))["fedmunkey_site_last_order_timestamp_seconds"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        text = httpx.get(f"http://{metrics_of(line)}/metrics", trust_env=False).text

    assert before['fedmunkey_site_records{split="train"}'] == 70
    assert after['fedmunkey_site_records{split="train"}'] == 68
    assert (before["fedmunkey_site_last_order"], after["fedmunkey_site_last_order"]) == (0, 1)
    assert before["fedmunkey_site_last_order_timestamp_seconds"] == 0
    assert abs(after["fedmunkey_site_last_order_timestamp_seconds"] - utc_now().timestamp()) < 600
    assert after["fedmunkey_site_readable"] == 1
    assert math.isinf(after["fedmunkey_site_certificate_end_timestamp_seconds"])
    for word in ("scan", "patient-0", "request-1", SITE):
        assert word not in text


def test_weights_renewals_and_exported_models_are_measured(run: Run, federation: Federation) -> None:
    site = federation.site(SITE)
    before = of(site)
    site.shared_weights.write_bytes(b"")
    about = {CONTRIBUTED: 0, RENEW_WITHIN: 7.0}
    site.shared_weights.with_suffix(".json").write_text(json.dumps({"digest": "ab" * 32, "about": about}))
    with site.open() as store:
        model = describe(store, digest="cd" * 32, name="m", release="ab", case_mix="own", time=utc_now())
    ExportRegister(site).add(model)
    given_away = of(site)
    run(*federation.officer, "--subject", "scan-patient-1", "--request-id", "request-1", "--wait", 0)
    catch_up(run, federation, SITE)
    after = of(site)

    assert before["release_timestamp_seconds"] == before["renewal_due_timestamp_seconds"] == 0
    assert before["exported_modelsmust-be-replaced"] == before["exported_modelsmay-stay"] == 0
    assert given_away["exported_modelsmay-stay"] == 1
    assert after["exported_modelsmust-be-replaced"] == 1
    assert given_away["renewal_due_timestamp_seconds"] == 0
    assert abs(after["renewal_due_timestamp_seconds"] - utc_now().timestamp() - 7 * 86400) < 600
    assert abs(after["release_timestamp_seconds"] - utc_now().timestamp()) < 600


def test_spent_budget_is_measured_under_certified_only(
    make_store: Make, make_records: MakeRecords, encode_records: Encode
) -> None:
    for guarantee in ("certified", "empirical"):
        store = make_store(guarantee=Guarantee(guarantee))
        records = make_records(range(4))
        store.records.enrol(records, encode_records(records), FederationSecret(b"a secret that sites share"))
        if guarantee == "certified":
            train(store)
        found = of(SiteFolder(store.path.parent))
        if guarantee == "certified":
            assert found["budget_epsilonpromised"] == 3.0
            assert found["budget_epsilonspent"] == pytest.approx(store.privacy.loss().epsilon)
            assert found["budget_epsilonspent"] > 0
        else:
            assert not [name for name in found if name.startswith("budget")]


def test_site_whose_folder_cannot_be_read_says_so(tmp_path: Path) -> None:
    assert of(SiteFolder(tmp_path)) == {"readable": 0}


def test_port_alone_is_of_this_machine_and_a_taken_one_is_one_line(tmp_path: Path) -> None:
    registry = site_registry(SiteFolder(tmp_path))
    with served_registry(registry, "0") as address:
        assert address.startswith("127.0.0.1:")
        with pytest.raises(InvalidSetting, match="choose another with --metrics"), served_registry(registry, address):
            pass
    with pytest.raises(InvalidSetting, match="is not an address"), served_registry(registry, "nowhere"):
        pass


def test_everything_that_is_measured_is_shown_and_what_is_watched_is_measured(make_store: Make) -> None:
    store = make_store()
    site = SiteFolder(store.path.parent)
    names = {metric.name for metric in SiteCollector(site).collect()}
    counted = {metric.name for metric in PredictionMeter(WarmPredictor(site, Asked({}))).registry.collect()}
    dashboard = (DEPLOY / "dashboard.json").read_text()
    panels = json.loads(dashboard)["panels"]
    watched = set(re.findall(r"\bfedmunkey_(?:site_|prediction)\w+", dashboard + (DEPLOY / "alerts.yml").read_text()))

    assert {name for name in names | counted if name not in dashboard} == set()
    assert {re.sub("_(total|bucket)$", "", name) for name in watched} - names - counted == set()
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({json.dumps(panel["gridPos"]) for panel in panels}) == len(panels)


def test_predictions_are_counted_where_the_service_serves_that(folder: SiteFolder, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "PATIENT-1.png")
    typed = ["serve-predictions", "--site-dir", folder.path, "--address", "127.0.0.1:0", "--metrics", 0]
    with program(*typed) as line:
        service = line.removeprefix(PREDICTIONS_READY).split(",")[0]
        asked = f"{service}/predictions?name=PATIENT-1.png"
        before = read(metrics_of(line))
        content = (tmp_path / "PATIENT-1.png").read_bytes()
        codes = [httpx.post(asked, content=body, trust_env=False).status_code for body in (content, content, b"no")]
        after = read(metrics_of(line))
        with folder.open() as store:
            store.wait_for_catch_up()
        codes.append(httpx.post(asked, content=content, trust_env=False).status_code)
        waiting = read(metrics_of(line))
        text = httpx.get(f"http://{metrics_of(line)}/metrics", trust_env=False).text

    assert codes == [200, 200, 422, 503]
    answers = [
        {name.split('"')[1]: value for name, value in found.items() if name.startswith("fedmunkey_predictions_total")}
        for found in (before, after, waiting)
    ]
    assert answers[0] == {"classified": 0, "refused": 0, "unavailable": 0}
    assert answers[1] == {"classified": 2, "refused": 1, "unavailable": 0}
    assert answers[2] == {"classified": 2, "refused": 1, "unavailable": 1}
    assert after["fedmunkey_prediction_seconds_count"] == 3
    assert after["fedmunkey_prediction_seconds_sum"] > 0
    assert (after["fedmunkey_predictions_waiting"], waiting["fedmunkey_predictions_waiting"]) == (0, 1)
    assert "PATIENT" not in text
