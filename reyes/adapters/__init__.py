"""The only code that touches AWS, gpg, the kernel, the disk or the clock."""
