"""castile behind zeep: one argument, and what the WSDL's policy asks for is done (features 7.1).

::

    import zeep, castile.zeep

    client = zeep.Client("https://bank.example/Transfers.svc?wsdl", transport=castile.zeep.Transport(
        credentials=castile.Username("ada", "secret"), store="transfers.db"))
    client.service.Transfer(amount=100)
"""

from __future__ import annotations

from castile.zeep.transport import AsyncTransport, Transport, key

__all__ = ["AsyncTransport", "Transport", "key"]
