"""smpvm: an executable, checkable model of DragonFly BSD's SMP page-out machinery."""

__version__ = "0.1.0"
