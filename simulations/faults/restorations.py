"""What operators do to a running federation: files put back from copies, stores made anew, keys replaced.

Everything is done by the commands that they type (`docs/operations.md`), while processes are killed.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from fedmunkey.client.deletions.requester import DEFAULT_DAYS
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults.federation import SETTINGS, Federation, Site, changed
from fedmunkey.simulations.faults.invariants import check_held
from fedmunkey.simulations.faults.processes import ProcessFault, Program
from fedmunkey.simulations.faults.proxy import CLEAR
from fedmunkey.simulations.faults.running_federation import PATIENCE, REFUSED, ProcessRole, RunningFederation
from fedmunkey.simulations.faults.submissions import Requesters

_AT_ONCE = 500
_SAID_AT_ONCE = 0.5
"""How often it is said that the log was restored before services are started again."""


class Restorations:
    """Everything of this kind, at sites that chance draws.

    `wait` waits for requesters; services are stopped in order once as many processes were killed as are to be.
    """

    def __init__(
        self,
        running: RunningFederation,
        requesters: Requesters,
        wait: Callable[[list[Future[None]]], None],
        kills: int,
    ) -> None:
        self._running, self._requesters, self._wait, self._kills = running, requesters, wait, kills
        self._backups: dict[str, Path] = {}
        self._copied = self._draw()
        self._made, self._unsettled = 0, False

    @property
    def _federation(self) -> Federation:
        return self._running.federation

    # The ledger.

    def copy(self) -> None:
        """Copy the ledger with its log, and each site's key store, as operators do every day."""
        self._federation.run_ledger.copy(self._ledger_copy)
        self._back_up(*self._federation.sites)

    def restore_ledger(self) -> None:
        """Kill the services, put a copy of the ledger with its log in its place, and have lost requests asked again."""
        running = self._running
        servers = [slot for slot in running.slots if slot.role is ProcessRole.SERVER]
        sites = [slot for slot in running.slots if slot.role is not ProcessRole.SERVER]
        left = self._kills - running.killed - running.armed
        with running.stopped(servers, signal.SIGKILL if left >= len(servers) else signal.SIGTERM):
            # What sites have done by now is known for good; they go on with another ledger.
            with running.stopped(sites):
                for site in self._federation.sites:
                    self._follow(site)
                    self._federation.model.sites[site.name].number = 0
            self._federation.run_ledger.put_back(self._ledger_copy)
            size = self._federation.run_ledger.log_size()
            said_at_once = running.chance.random() < _SAID_AT_ONCE
            if said_at_once:
                self._say_restored()
        if not said_at_once:
            self._say_restored("--size", str(size))
        self.witness()
        known = {status.request.request_id for status in running.statuses()}
        self._wait(self._requesters.ask_again(known))
        self.settle()
        self.copy()

    def _say_restored(self, *size: str) -> None:
        """Have the coordinator say that the log was restored, and the officer sign it.

        Where services have run on the copy meanwhile, it says how many leaves that had.
        """
        said, signed = self._next("restored", ".json"), self._next("restored-signed", ".json")
        site, *_ = self._federation.sites
        self._run(self._federation.coordinator("restored", "--reason", "the disk failed", "--save", str(said), *size))
        officer = ("--signing-key", str(self._federation.signers.officer))
        self._type(site, "countersign", str(said), *officer, "--save", str(signed), "--yes")
        self._run(self._federation.coordinator("restored", "--signed", str(signed)))

    def witness(self) -> None:
        """Have each site look at the log, which it must find to be the one that it has followed."""
        sites = self._federation.sites
        for proxy in self._running.proxies.values():
            proxy.set(CLEAR)
        looks = [self._federation.command(site, "catch-up", *self._at_service(site)) for site in sites]
        for site, said in zip(sites, self._run(*looks), strict=True):
            if "ALARM" in said:
                self._wonder(site, "it raises the alarm about a log of which it was said that it was restored")

    # A site's key store.

    def restore_store(self) -> None:
        """Put a site's key store back from its backup."""
        site = self._draw()
        with self._books_closed(site):
            self._type(site, "restore", str(self._backups[site.name]), *_at(site))
            self._expect_no_prediction(site)
        self._catch_up(site)

    def restore_store_without_journal(self) -> None:
        """Lose a site's key store with its journal, and put its backup back."""
        site = self._draw()
        with self._books_closed(site):
            self._lose_journal(site)
            for file in site.folder.path.glob("keystore.sqlite*"):
                file.unlink()
            self._type(site, "restore", str(self._backups[site.name]), *_at(site), "--without-journal")
            self._expect_no_prediction(site)
            self._accept_log(site)
        self._catch_up(site)

    def enrol_again(self) -> None:
        """Make a site's key store anew in its folder, as after one that cannot be read and has no backup."""
        self._enrol_again(self._draw(), with_journal=True)

    def enrol_again_without_journal(self) -> None:
        """Make a site's key store anew where its journal is lost as well."""
        # What it has not answered yet is lost with it.
        self.settle()
        self._enrol_again(self._draw(), with_journal=False)

    def _enrol_again(self, site: Site, *, with_journal: bool) -> None:
        aside = self._federation.folder / "aside"
        settings = [word for each in changed(SETTINGS) for word in ("--set", each)]
        enrolment = ("enrol", "--data", str(site.data), *_at(site), "--site", site.name, *settings)
        with self._books_closed(site):
            with site.folder.open() as store:
                # What a kill has interrupted is finished before, so that the journal has the answer.
                store.orders.read_unacknowledged()
            aside.mkdir()
            for file in (*site.folder.path.glob("keystore.sqlite*"), site.folder.path / "keystore.keys"):
                shutil.move(file, aside)
            if not with_journal:
                self._lose_journal(site)
            code, said = self._running.operate(self._federation.command(site, *enrolment))
            # Before its first order a site has nothing to hear again.
            if not with_journal or self._federation.model.sites[site.name].number:
                if code != REFUSED or "catch-up" not in said:
                    self._wonder(site, f"a key store made anew took records in before it had caught up ({code})")
                self._expect_no_prediction(site)
            lost = () if with_journal else ("--accept-log",)
            self._type(site, "catch-up", *self._at_service(site), *lost)
            # What is asked for meanwhile is heard by a store that has nothing to erase, and keeps it out.
            self._follow(site, empty=True)
            self._type(site, *enrolment)
            shutil.rmtree(aside)
        self._catch_up(site)
        self._requesters.look_again(site)

    def copy_folder(self) -> None:
        """Copy the whole folder of a site, which nobody should do (`damage_store`)."""
        site = self._copied = self._draw()
        with self._running.stopped(self._running.at(site)):
            shutil.copytree(site.folder.path, self._folder_copy)

    def damage_store(self, meanwhile: Callable[[Site], None]) -> None:
        """Damage a key store, see that its agent refuses it, and put the copy of its whole folder in its place.

        `meanwhile` is called while the site cannot use its key store.
        """
        site = self._copied
        with self._books_closed(site):
            for file in site.folder.path.glob(f"{site.folder.key_store.name}*"):
                with file.open("r+b") as opened:
                    opened.write(b"not what was written here" * 40)
            agent, *_ = self._running.at(site, ProcessRole.AGENT)
            self._running.expect_refusal(agent, "key store", "with a damaged key store")
            meanwhile(site)
            for kept in (site.folder.trust, site.folder.signing_key):
                # Keys may have been replaced since.
                shutil.copy2(kept, self._folder_copy)
            shutil.rmtree(site.folder.path)
            shutil.move(self._folder_copy, site.folder.path)
        self._catch_up(site)
        self._requesters.look_again(site)

    # Time and keys.

    def let_time_pass(self) -> None:
        """Let a day more pass than requests are valid for; what is under way is answered before."""
        self.settle()
        time = self._federation.time
        time.jump(time.ahead + timedelta(days=DEFAULT_DAYS + 1).total_seconds())

    def rotate_officer_key(self) -> None:
        """Give the officer another key, which all trust from now on, and end the one before."""
        self.settle()
        signers, (site, *_) = self._federation.signers, self._federation.sites
        old, new = signers.officer, signers.next_officer()
        self._type(site, "signing-keys", "new", str(new))
        self._run(*(self._trust(folder, new.stem, new, "officer") for folder in signers.trusting))
        self._run(*(self._end(folder, old) for folder in signers.trusting))

    def rotate_site_key(self) -> None:
        """Give a site another key that signs its receipts, and end the one before."""
        site = self._draw()
        self.settle()
        old = self._next(f"{site.name}-former", ".pem")
        coordinator = self._federation.folder
        with self._running.stopped(self._running.at(site)):
            for suffix in (".pem", ".pub"):
                shutil.move(site.folder.signing_key.with_suffix(suffix), old.with_suffix(suffix))
            self._type(site, "signing-keys", "new", *_at(site))
            self._run(
                self._trust(coordinator, site.name, site.folder.signing_key, "site"),
                # Its own receipts come back with orders that a store has to hear again.
                self._trust(site.folder.path, site.name, old, "site"),
            )
            self._run(*(self._end(folder, old) for folder in (coordinator, site.folder.path)))

    def _trust(self, folder: Path, name: str, key: Path, role: str) -> Program:
        words = ("trust", "add", name, str(key.with_suffix(".pub")), "--role", role)
        return self._federation.trusting(folder, *words)

    def _end(self, folder: Path, key: Path) -> Program:
        named = PublicKey.read(key.with_suffix(".pub")).key_id
        # The next full second: what was signed before stays good.
        at = self._federation.now() + timedelta(seconds=1)
        return self._federation.trusting(folder, "trust", "end", named, "--at", f"{at:%Y-%m-%dT%H:%M:%SZ}")

    # What these have in common.

    def settle(self) -> None:
        """Wait until every order is answered; what is not is waited for once, and then found to be broken."""
        for proxy in self._running.proxies.values():
            proxy.set(CLEAR)
        if self._unsettled:
            return
        with Ledger(self._federation.run_ledger.url) as ledger:
            try:
                self._running.await_so(lambda: not ledger.pending(), "the answer to every order")
            except ProcessFault:
                self._unsettled = True
                self._running.findings.broken.append(f"{ledger.pending()} orders have no answer, and nobody gives it")

    @contextmanager
    def _books_closed(self, site: Site) -> Iterator[None]:
        """Stop a site's processes meanwhile, and check before that it is what its model says."""
        self._running.proxies[site.name].set(CLEAR)
        with self._running.stopped(self._running.at(site)):
            self._follow(site)
            self._check(site)
            yield

    def _catch_up(self, site: Site) -> None:
        """Wait until a site's processes have caught up; begin to count its deletions anew, and take another backup."""
        with Ledger(self._federation.run_ledger.url) as ledger:
            self._running.await_so(
                lambda: _caught_up(site) >= ledger.last_number(site.name), "catching up after a restoration"
            )
        with self._running.stopped(self._running.at(site)):
            self._follow(site)
            model = self._federation.model.sites[site.name]
            with site.folder.open() as store:
                model.generations_before = store.generation - model.generation
            self._check(site)
            self._back_up(site)

    def _follow(self, site: Site, *, empty: bool = False) -> None:
        """Apply what a site whose processes are stopped has applied to its model, perhaps with an empty store."""
        model = self._federation.model
        with site.folder.open() as store, Ledger(self._federation.run_ledger.url) as ledger:
            last, site_model = store.orders.last, model.sites[site.name]
            while site_model.number < last:
                orders = ledger.orders(site.name, site_model.number, min(_AT_ONCE, last - site_model.number))
                if not orders:
                    self._wonder(site, f"order {last} was applied, and the ledger ends at {site_model.number}")
                    return
                for order in orders:
                    model.apply(site.name, order.request.request_id, empty=empty)
                    site_model.number = order.number

    def _check(self, site: Site) -> None:
        with site.folder.open() as store:
            check_held(self._federation, site, store, self._running.findings)

    def _back_up(self, *sites: Site) -> None:
        typed = []
        for site in sites:
            if site.name in self._backups:
                self._backups[site.name].unlink()
            self._backups[site.name] = file = self._next(site.name, ".backup")
            typed.append(self._federation.command(site, "backup", *_at(site), "--output", str(file)))
        self._run(*typed)

    def _lose_journal(self, site: Site) -> None:
        for file in site.folder.path.glob("keystore.journal*"):
            file.unlink()

    def _accept_log(self, site: Site) -> None:
        """See that an agent stops where what the site had seen of the log is lost, and have the log taken as it is."""
        agent, *_ = self._running.at(site, ProcessRole.AGENT)
        self._running.expect_refusal(agent, "is lost", "without what its site has seen of the log")
        self._type(site, "catch-up", *self._at_service(site), "--accept-log")

    def _expect_no_prediction(self, site: Site) -> None:
        code, said = self._running.operate(self._federation.command(site, "predict", str(site.data), *_at(site)))
        if code != REFUSED or "catch-up" not in said:
            self._wonder(site, f"it predicts before it has caught up ({code})")

    def _type(self, site: Site, *words: str) -> None:
        self._run(self._federation.command(site, *words))

    def _run(self, *programs: Program) -> list[str]:
        """Run what people type at the same time, which must succeed; return what was said."""
        outcomes = self._running.operate_together(programs)
        for program, (code, said) in zip(programs, outcomes, strict=True):
            if code:
                raise ProcessFault(f"{program.words[0]} ended with code {code}: {said.strip()}")
        return [said for _, said in outcomes]

    def _wonder(self, site: Site, what: str) -> None:
        self._running.findings.broken.append(f"{site.name}: {what}")

    def _draw(self) -> Site:
        return self._running.chance.choice(self._federation.sites)

    def _at_service(self, site: Site) -> tuple[str, ...]:
        return *_at(site), "--service", self._running.proxies[site.name].address, "--patience", f"{PATIENCE:.0f}"

    def _next(self, stem: str, suffix: str) -> Path:
        self._made += 1
        return self._federation.folder / f"{stem}-{self._made}{suffix}"

    @property
    def _ledger_copy(self) -> Path:
        return self._federation.folder / "ledger-copy.sqlite"

    @property
    def _folder_copy(self) -> Path:
        return self._federation.folder / "folder-copy"


def _at(site: Site) -> tuple[str, str]:
    return "--site-dir", str(site.folder.path)


def _caught_up(site: Site) -> int:
    """Return the last order that a site has applied; -1 while its key store is restored."""
    with closing(sqlite3.connect(f"file:{site.folder.key_store}?mode=ro", uri=True, timeout=60)) as connection:
        query = "SELECT CASE restored WHEN 0 THEN (SELECT max(number) FROM applied_orders) ELSE -1 END FROM description"
        return connection.execute(query).fetchone()[0] or 0


RESTORATIONS: tuple[Callable[[Restorations], None], ...] = (
    Restorations.restore_ledger,
    Restorations.restore_store,
    Restorations.restore_store_without_journal,
    Restorations.enrol_again,
    Restorations.enrol_again_without_journal,
    Restorations.rotate_officer_key,
    Restorations.rotate_site_key,
)
"""Those that are done again and again; before some of them, time passes."""
