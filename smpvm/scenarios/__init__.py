"""The deadlock-detection suite: small situations on the real model, one file each."""
