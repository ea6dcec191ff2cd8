"""Configurations as text, and what is said of wrong ones."""

from typing import Any

import pytest
import yaml

from reyes.config import parse_config
from reyes.errors import ConfigError

KEY = "0123456789ABCDEF0123456789ABCDEF01234567"
OTHER_KEY = "89abcdef0123456789abcdef0123456789abcdef"
MINIMAL = f"""
environment: production
s3: {{bucket: acme-reyes, key: production/ruleset.gpg, region: us-west-2}}
signing: {{keyring_directory: /etc/reyes/keyring, signing_key: "{KEY}"}}
"""

CONTRACT = f"""
environment: production
s3:
  bucket: acme-reyes
  key: production/ruleset.gpg
  region: us-west-2
signing:
  keyring_directory: /etc/reyes/keyring
  signing_key: {KEY}
  trusted_keys: []
leader:
  sources:
    - region: us-west-2
      vpcs: [vpc-0a1b2c3d]
    - region: eu-west-1
      role_arn: arn:aws:iam::123456789012:role/reyes-leader
  excluded_group_names: [vpn-allow-all]
  group_matching: name
  validity: 3600
  max_shrink: 0.3
follower:
  traffic: vpc
  interfaces: []
  filtered_cidrs: [10.0.0.0/8]
  filter_table: shared
  denied: drop
  failsafe: []
  disable_file: /etc/reyes/disabled
  state_directory: /var/lib/reyes
  instance_id: null
  region: null
  nf_conntrack_max: null
  log_accept: false
  log_drop: false
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "reyes.yaml")
    assert caught.value.exit_code == 78
    head, _, rest = caught.value.message.partition(": ")
    assert head == "reyes.yaml"
    return rest.split("; ")


def altered(path: str, value: Any) -> str:
    """The contract's text with one value changed; a path is written as in a message."""
    document = yaml.safe_load(CONTRACT)
    *way, last = [
        int(step) if step.isdecimal() else step
        for step in path.replace("[", ".").replace("]", "").split(".")
    ]
    place = document
    for step in way:
        place = place.setdefault(step, []) if isinstance(place, dict) else place[step]
    if isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return yaml.safe_dump(document, allow_unicode=True)
