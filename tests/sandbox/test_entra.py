from tests.sandbox.wire import *


def test_smoke(vendor, wire):
    t = vendor.tokens()
    print(claims_of(t["access_token"]))
    r = wire.get(vendor.cloud.partner_center + "/v1/profiles/organization", token=t["access_token"])
    assert r.status == 200, (r.status, r.text)
    assert wire.control("/counters").json()
