"""The pure way from a host's policy to ipset and iptables text, and to the steps of a commit."""
