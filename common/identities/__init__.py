"""Who a member of the federation is: a certificate of the coordinator's authority, and the key that goes with it."""

from fedmunkey.common.identities.identity import Identity, MemberRole

__all__ = ["Identity", "MemberRole"]
