"""The programs of a Proxmox node in a lab host: the simulation's own code over a real kernel and a real QEMU.

1. What a configuration may say, what is refused and in which words is `host/simulated/pve` of the product, unchanged.
2. Real are here: files, sysfs and its refusals (`world`), QEMU and its refusals (`machinery`), the agent (`talk`).
3. A guest has no disks and no network: its configuration starts a kernel directly with `args`.
"""
