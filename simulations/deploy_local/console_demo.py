"""A deployment with requests in every state that comes about within minutes, for the console to show."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from fedmunkey.common.console.serving import LINK_LINE
from fedmunkey.simulations.deploy_local.hospital_files import HOSPITALS, PATIENT
from fedmunkey.simulations.deploy_local.terminal import Background
from fedmunkey.simulations.deploy_local.walkthrough import OFFICER, Walkthrough

SECOND_OFFICER = "officer-2"
_ASKED = ("--as", OFFICER, "--signing-key", "officer.pem", "--identity", OFFICER, "--secret", "federation.secret")


class ConsoleDemo(Walkthrough):
    """The federation of the walkthrough, an officer who has asked for much, and the officer's console."""

    def serve(self) -> Background:
        """Bring up what deletions need, without rounds: the service and the hospitals' agents."""
        terminal, at = self._terminal, self._at
        self._make_coordinator()
        where = ["--coordinator-dir", "coordinator", "--address", at.deletions, "--joining-address", at.joining]
        service = terminal.start("coordinator", "munkey-server", "serve", *where)
        service.expect("deletion service at ")
        self._join()
        self._take_in_records()
        self._collect_keys()
        for hospital in HOSPITALS:
            own = ["--site-dir", hospital, "--service", at.deletions]
            terminal.start(hospital, "munkey-client", "agent", *own).expect("deletion agent of ")
        return service

    def fill(self) -> None:
        """Bring up everything, and have the officer ask until there is something in every state."""
        terminal = self._terminal
        self._make_coordinator()
        coordinator = terminal.start("coordinator", "munkey-server", "up", "coordinator.toml")
        coordinator.expect("coordinator is up")
        self._join()
        self._take_in_records()
        sites = self._start_sites(coordinator)
        self._train()
        self._collect_keys()
        terminal.say("the officer asks: what is renewed, what nobody has, what one hospital refuses, what all refuse")
        self._ask("--subject-file", self._write_ids("patient-1003"))
        terminal.type("munkey-server", "run", "coordinator.toml", "--renew", "--now", "--json")
        self._ask("--subject-file", self._write_ids("patient-nobody"), ends=3)
        self._require_two_officers(HOSPITALS[0])
        self._ask("--everything", "--yes", "--site", HOSPITALS[0], ends=5)
        self._ask("--records-file", self._write_ids(*self._many_records()), ends=4)
        terminal.say("two patients whose entries are gone, and the weights do not know it yet")
        for patient in (PATIENT, "patient-2002"):
            self._ask("--subject-file", self._write_ids(patient))
        terminal.say("a hospital is off: what is asked for now waits for it")
        sites[-1].stop()
        for patient in ("patient-1009", "patient-3001"):
            self._ask("--subject-file", self._write_ids(patient), "--wait", 0, ends=6)

    def open_console(self) -> tuple[Background, str]:
        """Start the officer's console; return it and the link that opens it."""
        shown = ["--keys", "keys.json", "--service", self._at.deletions, "--listen", "127.0.0.1:0", "--no-browser"]
        console = self._terminal.start("console", "munkey-client", "console", *_ASKED, *shown)
        return console, console.expect(LINK_LINE).removeprefix(LINK_LINE)

    def _ask(self, *words: object, ends: int = 0) -> None:
        where = ["--service", self._at.deletions, "--request-id", str(uuid.uuid4())]
        waits = [] if "--wait" in words else ["--wait", 120]
        self._terminal.type("munkey-client", "forget", *_ASKED, *words, *waits, *where, ends=ends)

    def _write_ids(self, *ids: str) -> str:
        path = Path(self._terminal.folder) / f"ids-{len(list(self._terminal.folder.glob('ids-*')))}.txt"
        path.write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
        return path.name

    def _many_records(self) -> list[str]:
        """Return more than half of the first hospital's records, and one of the second."""
        held = json.loads(self._terminal.type("munkey-client", "status", "--site-dir", HOSPITALS[0], "--json"))
        half = sum(held["records"].values()) // 2
        return [f"{HOSPITALS[0]}-train-{row}" for row in range(half + 10)] + [f"{HOSPITALS[1]}-train-9"]

    def _require_two_officers(self, hospital: str) -> None:
        terminal = self._terminal
        terminal.type("munkey-client", "signing-keys", "new", f"{SECOND_OFFICER}.pem")
        trust = ["--role", "officer", "--in", hospital]
        terminal.type("munkey-client", "trust", "add", SECOND_OFFICER, f"{SECOND_OFFICER}.pub", *trust)
        terminal.type("munkey-client", "trust", "require", 2, "--in", hospital)
