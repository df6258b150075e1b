"""zeep #655: who may sign the reply is another question than whose key signs the request."""

import zeep

import castile.zeep

WSDL = "http://127.0.0.1:8000/?wsdl"
CALL = {"debtor": "AB1234", "creditor": "CD5678", "amount": "9.50"}
OURS = castile.Certificate("ada.pem")

with castile.zeep.Transport(credentials=OURS, service_certificate="service.crt") as transport:
    print(zeep.Client(WSDL, transport=transport).service.Transfer(**CALL))

# Encrypted for the service, as before; but the reply is signed by somebody whom nobody vouches for.
with castile.zeep.Transport(credentials=OURS, service_certificate="other.crt", timeout=2) as transport:
    try:
        print(zeep.Client(WSDL, transport=transport).service.Transfer(**CALL))
    except castile.CastileError as refused:
        print("refused:", type(refused).__name__)
