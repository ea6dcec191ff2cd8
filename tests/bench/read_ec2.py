"""Read all pages of some regions, and do nothing with them: read_ec2 [--cut] REGION...

The floor of a leader: the same calls with the same page size, in one thread a region, on one
session. With --cut botocore parses no more than it does for the leader: what the leader then
takes beyond that is its own.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.session
from botocore.config import Config

CALLS = (
    "describe_vpcs",
    "describe_security_groups",
    "describe_network_interfaces",
    "describe_instances",
)


ENDED = [{"Name": "instance-state-name", "Values": ["terminated"]}]


def read(client: Any) -> None:
    for call in CALLS:
        filters = {"Filters": ENDED} if call == "describe_instances" else {}
        pages = client.get_paginator(call).paginate(**filters, PaginationConfig={"PageSize": 1000})
        for _ in pages:
            pass


def main() -> None:
    regions = sys.argv[1:]
    session = botocore.session.Session()
    if regions[0] == "--cut":
        from reyes.adapters.ec2_model import cut_model

        regions.pop(0)
        cut_model(session)
    settings = Config(retries={"mode": "adaptive"})
    clients = [session.create_client("ec2", region, config=settings) for region in regions]
    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(read, clients))


main()
