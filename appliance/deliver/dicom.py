"""Deliveries by C-STORE: which of them share an association, and as whom we call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from appliance.config import DicomDestination
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.retry import ContextRefused, Judgement, judge
from appliance.deliver.wire import Context
from appliance.dicom.pdus import MAX_CONTEXTS
from appliance.records import DeliveryKind
from appliance.store.deliveries import Delivery


def peer_of(destination: DicomDestination, box_ae_title: str, delivery: Delivery | None = None) -> Peer:
    """Whom to call as whom: an original under its scanner's AE title, a result under the box's, unless configured."""
    calling = destination.calling_ae_title or box_ae_title
    if delivery is not None and delivery.kind is DeliveryKind.ORIGINAL and destination.calling_ae_title is None:
        calling = delivery.calling_ae or box_ae_title
    return Peer(
        host=destination.host,
        port=destination.port,
        called_ae=destination.ae_title,
        calling_ae=calling,
        timeout_s=destination.timeout_s,
        tls=destination.tls,
    )


class DicomSender:
    """A storage SCP."""

    def __init__(
        self,
        destination: DicomDestination,
        box_ae_title: str,
        associate: Callable[[Peer, Sequence[Context]], Association] = Association,
    ) -> None:
        """Speak to ``destination``; ``associate`` is how an association is made, tests give another."""
        self._destination = destination
        self._box_ae_title = box_ae_title
        self._associate = associate

    def peer_for(self, delivery: Delivery) -> Peer:
        """Whom to call, as whom, for this one."""
        return peer_of(self._destination, self._box_ae_title, delivery)

    def batch(self, owed: list[Delivery]) -> list[Delivery]:
        """What can go over one association: one calling AE title, few enough contexts."""
        peer = self.peer_for(owed[0])
        contexts: set[Context] = set()
        left_out: set[int] = set()
        batch = []
        for delivery in owed:
            context = (delivery.sop_class_uid, delivery.transfer_syntax_uid)
            fits = context in contexts or len(contexts) < MAX_CONTEXTS
            if delivery.study_id in left_out or not fits or self.peer_for(delivery) != peer:
                left_out.add(delivery.study_id)
                continue
            contexts.add(context)
            batch.append(delivery)
        return batch

    def open(self, batch: list[Delivery]) -> DicomChannel:
        """Associate for these; raises ``NoAssociation``."""
        return DicomChannel(self, self._associate(self.peer_for(batch[0]), _contexts(batch)))


class DicomChannel:
    """An association."""

    def __init__(self, sender: DicomSender, association: Association) -> None:
        """Send over ``association``."""
        self._sender = sender
        self._association = association

    def takes(self, batch: list[Delivery]) -> bool:
        """Whether it was made for these, and stands."""
        association = self._association
        is_same = association.peer == self._sender.peer_for(batch[0]) and association.covers(_contexts(batch))
        return is_same and association.is_alive()

    def send(self, delivery: Delivery, stream: IO[bytes], size: int) -> Judgement:
        """C-STORE."""
        context = (delivery.sop_class_uid, delivery.transfer_syntax_uid)
        answer: int | ContextRefused
        try:
            answer = self._association.store(context, delivery.sop_instance_uid, stream, size)
        except ContextRefused as error:
            answer = error
        return judge(answer, version_n=delivery.version_n)

    def release(self) -> None:
        """A-RELEASE."""
        self._association.release()

    def interrupt(self) -> None:
        """Cut it."""
        self._association.interrupt()


def _contexts(batch: list[Delivery]) -> list[Context]:
    return list(dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in batch))
