"""Constants of the enrolment that both sides must agree on."""

SIGNING_CONTEXT = b"fedmunkey enrolment"
"""Before a request for a certificate, what a site signs with the key with which it signs requests and receipts."""
