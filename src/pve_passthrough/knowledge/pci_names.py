"""Names of PCI functions that the list of an installed Debian does not know yet.

1. Rows only, each group with its source; a row is deleted when the oldest supported Debian's list has it.
2. A name here never overrules the host's own list: it is asked when that list is silent.
3. Names say what the thing is, never what to do with it.
"""

from __future__ import annotations

from collections.abc import Mapping

# Source: pci.ids of the PCI ID Project, revision 006181e. Debian 12 carries the list of 2023-04-10, which has
# none of these rows.
_NVIDIA = (
    (0x22E8, "GB202 High Definition Audio Controller"),
    (0x22E9, "GB203 High Definition Audio Controller"),
    (0x22EB, "GB206 High Definition Audio Controller"),
    (0x22EC, "GB207 High Definition Audio Controller"),
    (0x2689, "AD102 [GeForce RTX 4070 Ti SUPER]"),
    (0x2685, "AD102 [GeForce RTX 4090 D]"),
    (0x2702, "AD103 [GeForce RTX 4080 SUPER]"),
    (0x2703, "AD103 [GeForce RTX 4080 SUPER]"),
    (0x2705, "AD103 [GeForce RTX 4070 Ti SUPER]"),
    (0x2709, "AD103 [GeForce RTX 4070]"),
    (0x2783, "AD104 [GeForce RTX 4070 SUPER]"),
    (0x2788, "AD104 [GeForce RTX 4060 Ti]"),
    (0x27B1, "AD104GL [RTX 4500 Ada Generation]"),
    (0x27B2, "AD104GL [RTX 4000 Ada Generation]"),
    (0x2805, "AD106 [GeForce RTX 4060 Ti 16GB]"),
    (0x2808, "AD106 [GeForce RTX 4060]"),
    (0x2882, "AD107 [GeForce RTX 4060]"),
    (0x28B0, "AD107GL [RTX 2000 / 2000E Ada Generation]"),
    (0x2335, "GH100 [H200 SXM 141GB]"),
    (0x233B, "GH100 [H200 NVL]"),
    (0x2901, "GB100 [B200]"),
    (0x2B85, "GB202 [GeForce RTX 5090]"),
    (0x2B87, "GB202 [GeForce RTX 5090 D]"),
    (0x2B8C, "GB202 [GeForce RTX 5090 D V2]"),
    (0x2BB1, "GB202GL [RTX PRO 6000 Blackwell Workstation Edition]"),
    (0x2BB2, "GB202GL [RTX PRO 6000D Blackwell Workstation Edition]"),
    (0x2BB3, "GB202GL [RTX PRO 5000 Blackwell]"),
    (0x2BB4, "GB202GL [RTX PRO 6000 Blackwell Max-Q Workstation Edition]"),
    (0x2BB5, "GB202GL [RTX PRO 6000 Blackwell Server Edition]"),
    (0x2C02, "GB203 [GeForce RTX 5080]"),
    (0x2C05, "GB203 [GeForce RTX 5070 Ti]"),
    (0x2C18, "GB203M [GeForce RTX 5090 Mobile]"),
    (0x2C19, "GB203M [GeForce RTX 5080 Mobile]"),
    (0x2C31, "GB203GL [RTX PRO 4500 Blackwell]"),
    (0x2C33, "GB203GL [RTX PRO 4000 Blackwell SFF Edition]"),
    (0x2C34, "GB203GL [RTX PRO 4000 Blackwell]"),
    (0x2C58, "GB203M [GeForce RTX 5090 Mobile]"),
    (0x2C59, "GB203M [GeForce RTX 5080 Mobile]"),
    (0x2D04, "GB206 [GeForce RTX 5060 Ti]"),
    (0x2D05, "GB206 [GeForce RTX 5060]"),
    (0x2D18, "GB206M [GeForce RTX 5070 Mobile]"),
    (0x2D19, "GB206M [GeForce RTX 5060 Mobile]"),
    (0x2D30, "GB206GL [RTX PRO 2000 Blackwell]"),
    (0x2D83, "GB207 [GeForce RTX 5050]"),
    (0x2D98, "GB207M [GeForce RTX 5050 Mobile]"),
    (0x2F04, "GB205 [GeForce RTX 5070]"),
    (0x2F06, "GB205 [GeForce RTX 5060]"),
    (0x2F18, "GB205M [GeForce RTX 5070 Ti Mobile]"),
    (0x2F80, "GB205 High Definition Audio Controller"),
    (0x3182, "GB110 [B300 SXM6 AC]"),
)
_AMD = (
    (0x744B, "Navi 31 [Radeon Pro W7900D]"),
    (0x7460, "Navi 32 GL-XL [Radeon PRO V710]"),
    (0x7470, "Navi 32 [Radeon PRO W7700]"),
    (0x747E, "Navi 32 [Radeon RX 7700 XT / 7800 XT]"),
    (0x7489, "Navi 33 [Radeon Pro W7500]"),
    (0x7499, "Navi 33 [Radeon RX 7400 / 7300 / Pro W7400]"),
    (0x74A1, "Aqua Vanjaram [Instinct MI300X]"),
    (0x74A5, "Aqua Vanjaram [Instinct MI325X]"),
    (0x7550, "Navi 48 [Radeon RX 9070 / 9070 XT / 9070 GRE]"),
    (0x7551, "Navi 48 [Radeon AI PRO R9700]"),
    (0x7590, "Navi 44 [Radeon RX 9060 XT]"),
    (0xAB30, "Navi 31 HDMI/DP Audio"),
    (0xAB40, "Navi 48 HDMI/DP Audio Controller"),
)
_INTEL = (
    (0xB080, "Panther Lake [Arc B390]"),
    (0xB081, "Panther Lake [Arc B370]"),
    (0xE20B, "Battlemage G21 [Arc B580]"),
    (0xE20C, "Battlemage G21 [Arc B570]"),
    (0xE211, "Battlemage G21 [Arc Pro B60]"),
    (0xE212, "Battlemage G21 [Arc Pro B50]"),
    (0xE222, "Battlemage G31 [Arc Pro B65]"),
    (0xE223, "Battlemage G31 [Arc Pro B70]"),
)

PRODUCTS: Mapping[tuple[int, int], str] = {
    (vendor, product): name
    for vendor, rows in ((0x10DE, _NVIDIA), (0x1002, _AMD), (0x8086, _INTEL))
    for product, name in rows
}
"""Product name by (vendor, product)."""

VENDORS: Mapping[int, str] = {
    0x1002: "AMD/ATI",
    0x1022: "AMD",
    0x10DE: "NVIDIA",
    0x8086: "Intel",
    0x1AF4: "Red Hat",
    0x1B36: "Red Hat",
}
"""Short vendor names for hosts that have no list at all."""
