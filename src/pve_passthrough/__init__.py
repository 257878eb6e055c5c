"""From a bare Proxmox VE host to a guest that verifiably has the device, and back."""

__version__ = "0.1.0"
