"""The Flower ClientApp of a site: it catches up with deletions, then does what a round asks.

What a reply holds is decided in `client.rounds` and nowhere else: shared weights or masked sums, numbers about the
whole site, its name.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmunkey.client.rounds.descended import evaluate_bank, train_bank
from fedmunkey.client.rounds.solved import announce, contribute, take_release, tally_answers
from fedmunkey.client.rounds.turn import answer_message

app = ClientApp()


@app.train()
def train_site(message: Message, context: Context) -> Message:
    """Train on the site's bank, from the shared weights of the message."""
    return answer_message(message, context, train_bank)


@app.evaluate()
def evaluate_site(message: Message, context: Context) -> Message:
    """Evaluate the shared weights of the message with the site's bank on its held-out records."""
    return answer_message(message, context, evaluate_bank)


@app.query("announce")
def announce_site(message: Message, context: Context) -> Message:
    """Say who this site is, if it can take part."""
    return answer_message(message, context, announce)


@app.train("contribute")
def contribute_site(message: Message, context: Context) -> Message:
    """Send the sums that shared weights are solved from."""
    return answer_message(message, context, contribute)


@app.query("tally")
def tally_site(message: Message, context: Context) -> Message:
    """Count how the message's weights answer the site's records."""
    return answer_message(message, context, tally_answers)


@app.evaluate("take_release")
def take_release_site(message: Message, context: Context) -> Message:
    """Take the released weights of the message over."""
    return answer_message(message, context, take_release)
