//! Instruction forms by the size of the operands: 4, 8 and 16 lanes, then, where there are five, a scalar f32 and f64.

use iced_x86::Code;

/// Float add.
pub(super) const FADD: [Code; 5] = [
    Code::EVEX_Vaddps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vaddss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vaddsd_xmm_k1z_xmm_xmmm64_er,
];

/// Float sub.
pub(super) const FSUB: [Code; 5] = [
    Code::EVEX_Vsubps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vsubps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vsubss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vsubsd_xmm_k1z_xmm_xmmm64_er,
];

/// Float mul.
pub(super) const FMUL: [Code; 5] = [
    Code::EVEX_Vmulps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vmulps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vmulss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vmulsd_xmm_k1z_xmm_xmmm64_er,
];

/// Float div.
pub(super) const FDIV: [Code; 5] = [
    Code::EVEX_Vdivps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vdivps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vdivss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vdivsd_xmm_k1z_xmm_xmmm64_er,
];

/// Float min.
pub(super) const FMIN: [Code; 5] = [
    Code::EVEX_Vminps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vminps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae,
    Code::EVEX_Vminss_xmm_k1z_xmm_xmmm32_sae,
    Code::EVEX_Vminsd_xmm_k1z_xmm_xmmm64_sae,
];

/// Float max.
pub(super) const FMAX: [Code; 5] = [
    Code::EVEX_Vmaxps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vmaxps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae,
    Code::EVEX_Vmaxss_xmm_k1z_xmm_xmmm32_sae,
    Code::EVEX_Vmaxsd_xmm_k1z_xmm_xmmm64_sae,
];

/// Fused multiply-add, form 132.
pub(super) const FMA132: [Code; 5] = [
    Code::EVEX_Vfmadd132ps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vfmadd132ps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vfmadd132ss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vfmadd132sd_xmm_k1z_xmm_xmmm64_er,
];

/// Fused multiply-add, form 213.
pub(super) const FMA213: [Code; 5] = [
    Code::EVEX_Vfmadd213ps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vfmadd213ps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vfmadd213ss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vfmadd213sd_xmm_k1z_xmm_xmmm64_er,
];

/// Fused multiply-add, form 231.
pub(super) const FMA231: [Code; 5] = [
    Code::EVEX_Vfmadd231ps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vfmadd231ps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
    Code::EVEX_Vfmadd231ss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vfmadd231sd_xmm_k1z_xmm_xmmm64_er,
];

/// Float and of bits; scalars as vectors.
pub(super) const FAND: [Code; 5] = [
    Code::EVEX_Vandps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vandps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vandps_zmm_k1z_zmm_zmmm512b32,
    Code::EVEX_Vandps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vandpd_xmm_k1z_xmm_xmmm128b64,
];

/// Float xor of bits; scalars as vectors.
pub(super) const FXOR: [Code; 5] = [
    Code::EVEX_Vxorps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vxorps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vxorps_zmm_k1z_zmm_zmmm512b32,
    Code::EVEX_Vxorps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vxorpd_xmm_k1z_xmm_xmmm128b64,
];

/// Float blendm of bits; scalars as vectors.
pub(super) const FBLEND: [Code; 5] = [
    Code::EVEX_Vblendmps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vblendmps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32,
    Code::EVEX_Vblendmps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vblendmpd_xmm_k1z_xmm_xmmm128b64,
];

/// Replaces lanes by their class.
pub(super) const FIXUP: [Code; 5] = [
    Code::EVEX_Vfixupimmps_xmm_k1z_xmm_xmmm128b32_imm8,
    Code::EVEX_Vfixupimmps_ymm_k1z_ymm_ymmm256b32_imm8,
    Code::EVEX_Vfixupimmps_zmm_k1z_zmm_zmmm512b32_imm8_sae,
    Code::EVEX_Vfixupimmss_xmm_k1z_xmm_xmmm32_imm8_sae,
    Code::EVEX_Vfixupimmsd_xmm_k1z_xmm_xmmm64_imm8_sae,
];

/// Rounds to an integral float; scalars have a second source.
pub(super) const ROUND: [Code; 5] = [
    Code::EVEX_Vrndscaleps_xmm_k1z_xmmm128b32_imm8,
    Code::EVEX_Vrndscaleps_ymm_k1z_ymmm256b32_imm8,
    Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae,
    Code::EVEX_Vrndscaless_xmm_k1z_xmm_xmmm32_imm8_sae,
    Code::EVEX_Vrndscalesd_xmm_k1z_xmm_xmmm64_imm8_sae,
];

/// Square root; scalars have a second source.
pub(super) const SQRT: [Code; 5] = [
    Code::EVEX_Vsqrtps_xmm_k1z_xmmm128b32,
    Code::EVEX_Vsqrtps_ymm_k1z_ymmm256b32,
    Code::EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er,
    Code::EVEX_Vsqrtss_xmm_k1z_xmm_xmmm32_er,
    Code::EVEX_Vsqrtsd_xmm_k1z_xmm_xmmm64_er,
];

/// Float comparison to a mask.
pub(super) const FCMP: [Code; 5] = [
    Code::EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8,
    Code::EVEX_Vcmpps_kr_k1_ymm_ymmm256b32_imm8,
    Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae,
    Code::EVEX_Vcmpss_kr_k1_xmm_xmmm32_imm8_sae,
    Code::EVEX_Vcmpsd_kr_k1_xmm_xmmm64_imm8_sae,
];

/// Integer Vpaddd.
pub(super) const IADD: [Code; 3] = [
    Code::EVEX_Vpaddd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpaddd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpsubd.
pub(super) const ISUB: [Code; 3] = [
    Code::EVEX_Vpsubd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpsubd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpmulld.
pub(super) const IMUL: [Code; 3] = [
    Code::EVEX_Vpmulld_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpmulld_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpminsd.
pub(super) const IMIN: [Code; 3] = [
    Code::EVEX_Vpminsd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpminsd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpmaxsd.
pub(super) const IMAX: [Code; 3] = [
    Code::EVEX_Vpmaxsd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpmaxsd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpandd.
pub(super) const IAND: [Code; 3] = [
    Code::EVEX_Vpandd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpandd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpord.
pub(super) const IOR: [Code; 3] = [
    Code::EVEX_Vpord_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpord_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpord_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpxord.
pub(super) const IXOR: [Code; 3] = [
    Code::EVEX_Vpxord_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpxord_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpsllvd.
pub(super) const ISHL: [Code; 3] = [
    Code::EVEX_Vpsllvd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpsllvd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpsllvd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpsravd.
pub(super) const ISHRS: [Code; 3] = [
    Code::EVEX_Vpsravd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpsravd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpsravd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpsrlvd.
pub(super) const ISHRU: [Code; 3] = [
    Code::EVEX_Vpsrlvd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpsrlvd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpsrlvd_zmm_k1z_zmm_zmmm512b32,
];

/// Integer Vpblendmd.
pub(super) const IBLEND: [Code; 3] = [
    Code::EVEX_Vpblendmd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpblendmd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpblendmd_zmm_k1z_zmm_zmmm512b32,
];

/// Shift by a constant, Vpslld.
pub(super) const ISHL_IMM: [Code; 3] = [
    Code::EVEX_Vpslld_xmm_k1z_xmmm128b32_imm8,
    Code::EVEX_Vpslld_ymm_k1z_ymmm256b32_imm8,
    Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8,
];

/// Shift by a constant, Vpsrad.
pub(super) const ISHRS_IMM: [Code; 3] = [
    Code::EVEX_Vpsrad_xmm_k1z_xmmm128b32_imm8,
    Code::EVEX_Vpsrad_ymm_k1z_ymmm256b32_imm8,
    Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
];

/// Shift by a constant, Vpsrld.
pub(super) const ISHRU_IMM: [Code; 3] = [
    Code::EVEX_Vpsrld_xmm_k1z_xmmm128b32_imm8,
    Code::EVEX_Vpsrld_ymm_k1z_ymmm256b32_imm8,
    Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
];

/// Absolute value.
pub(super) const IABS: [Code; 3] =
    [Code::EVEX_Vpabsd_xmm_k1z_xmmm128b32, Code::EVEX_Vpabsd_ymm_k1z_ymmm256b32, Code::EVEX_Vpabsd_zmm_k1z_zmmm512b32];

/// Any function of three bits.
pub(super) const TERNLOG: [Code; 5] = [
    Code::EVEX_Vpternlogd_xmm_k1z_xmm_xmmm128b32_imm8,
    Code::EVEX_Vpternlogd_ymm_k1z_ymm_ymmm256b32_imm8,
    Code::EVEX_Vpternlogd_zmm_k1z_zmm_zmmm512b32_imm8,
    Code::EVEX_Vpternlogd_xmm_k1z_xmm_xmmm128b32_imm8,
    Code::EVEX_Vpternlogq_xmm_k1z_xmm_xmmm128b64_imm8,
];

/// Signed comparison.
pub(super) const ICMP: [Code; 3] = [
    Code::EVEX_Vpcmpd_kr_k1_xmm_xmmm128b32_imm8,
    Code::EVEX_Vpcmpd_kr_k1_ymm_ymmm256b32_imm8,
    Code::EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8,
];

/// Unsigned comparison.
pub(super) const ICMPU: [Code; 3] = [
    Code::EVEX_Vpcmpud_kr_k1_xmm_xmmm128b32_imm8,
    Code::EVEX_Vpcmpud_kr_k1_ymm_ymmm256b32_imm8,
    Code::EVEX_Vpcmpud_kr_k1_zmm_zmmm512b32_imm8,
];

/// Mask of lanes with common bits.
pub(super) const ITEST: [Code; 3] = [
    Code::EVEX_Vptestmd_kr_k1_xmm_xmmm128b32,
    Code::EVEX_Vptestmd_kr_k1_ymm_ymmm256b32,
    Code::EVEX_Vptestmd_kr_k1_zmm_zmmm512b32,
];

/// Unaligned load.
pub(super) const LOADPS: [Code; 3] =
    [Code::EVEX_Vmovups_xmm_k1z_xmmm128, Code::EVEX_Vmovups_ymm_k1z_ymmm256, Code::EVEX_Vmovups_zmm_k1z_zmmm512];

/// Unaligned store.
pub(super) const STOREPS: [Code; 3] =
    [Code::EVEX_Vmovups_xmmm128_k1z_xmm, Code::EVEX_Vmovups_ymmm256_k1z_ymm, Code::EVEX_Vmovups_zmmm512_k1z_zmm];

/// Copy.
pub(super) const MOVAPS: [Code; 3] =
    [Code::EVEX_Vmovaps_xmm_k1z_xmmm128, Code::EVEX_Vmovaps_ymm_k1z_ymmm256, Code::EVEX_Vmovaps_zmm_k1z_zmmm512];

/// A scalar of a vector register or of memory in every lane.
pub(super) const BROADCAST: [Code; 3] = [
    Code::EVEX_Vbroadcastss_xmm_k1z_xmmm32,
    Code::EVEX_Vbroadcastss_ymm_k1z_xmmm32,
    Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32,
];

/// Lanes by turns of the first halves, of each 128 bits.
pub(super) const ZIP_LOW: [Code; 2] =
    [Code::EVEX_Vunpcklps_xmm_k1z_xmm_xmmm128b32, Code::EVEX_Vunpcklps_ymm_k1z_ymm_ymmm256b32];

/// Lanes by turns of the second halves, of each 128 bits.
pub(super) const ZIP_HIGH: [Code; 2] =
    [Code::EVEX_Vunpckhps_xmm_k1z_xmm_xmmm128b32, Code::EVEX_Vunpckhps_ymm_k1z_ymm_ymmm256b32];

/// Lanes of two registers by numbers, of which the result overwrites the first; of 8 and 16 lanes.
pub(super) const PERMUTE_TWO: [Code; 2] =
    [Code::EVEX_Vpermt2ps_ymm_k1z_ymm_ymmm256b32, Code::EVEX_Vpermt2ps_zmm_k1z_zmm_zmmm512b32];

/// A general register in every lane.
pub(super) const BROADCAST_GPR: [Code; 3] =
    [Code::EVEX_Vpbroadcastd_xmm_k1z_r32, Code::EVEX_Vpbroadcastd_ymm_k1z_r32, Code::EVEX_Vpbroadcastd_zmm_k1z_r32];

/// Widening load of bytes.
pub(super) const ZX8: [Code; 3] =
    [Code::EVEX_Vpmovzxbd_xmm_k1z_xmmm32, Code::EVEX_Vpmovzxbd_ymm_k1z_xmmm64, Code::EVEX_Vpmovzxbd_zmm_k1z_xmmm128];

/// Widening load of bytes.
pub(super) const SX8: [Code; 3] =
    [Code::EVEX_Vpmovsxbd_xmm_k1z_xmmm32, Code::EVEX_Vpmovsxbd_ymm_k1z_xmmm64, Code::EVEX_Vpmovsxbd_zmm_k1z_xmmm128];

/// Widening load of 16-bit elements.
pub(super) const ZX16: [Code; 3] =
    [Code::EVEX_Vpmovzxwd_xmm_k1z_xmmm64, Code::EVEX_Vpmovzxwd_ymm_k1z_xmmm128, Code::EVEX_Vpmovzxwd_zmm_k1z_ymmm256];

/// Widening load of 16-bit elements.
pub(super) const SX16: [Code; 3] =
    [Code::EVEX_Vpmovsxwd_xmm_k1z_xmmm64, Code::EVEX_Vpmovsxwd_ymm_k1z_xmmm128, Code::EVEX_Vpmovsxwd_zmm_k1z_ymmm256];

/// Widening load of 16-bit elements.
pub(super) const FROM_HALF: [Code; 3] = [
    Code::EVEX_Vcvtph2ps_xmm_k1z_xmmm64,
    Code::EVEX_Vcvtph2ps_ymm_k1z_xmmm128,
    Code::EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae,
];

/// Sums of two products of bf16.
pub(super) const DOT_BF16: [Code; 3] = [
    Code::EVEX_Vdpbf16ps_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vdpbf16ps_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vdpbf16ps_zmm_k1z_zmm_zmmm512b32,
];

/// Floats to bf16, in a register of half the size.
pub(super) const TO_BF16: [Code; 3] = [
    Code::EVEX_Vcvtneps2bf16_xmm_k1z_xmmm128b32,
    Code::EVEX_Vcvtneps2bf16_xmm_k1z_ymmm256b32,
    Code::EVEX_Vcvtneps2bf16_ymm_k1z_zmmm512b32,
];

/// Store of 16-bit lanes, by the size of twice the register.
pub(super) const STORE_WORDS: [Code; 3] =
    [Code::EVEX_Vmovq_xmmm64_xmm, Code::EVEX_Vmovdqu16_xmmm128_k1z_xmm, Code::EVEX_Vmovdqu16_ymmm256_k1z_ymm];

/// Store of the low bytes.
pub(super) const STORE8: [Code; 3] =
    [Code::EVEX_Vpmovdb_xmmm32_k1z_xmm, Code::EVEX_Vpmovdb_xmmm64_k1z_ymm, Code::EVEX_Vpmovdb_xmmm128_k1z_zmm];

/// Store of the low halves.
pub(super) const STORE16: [Code; 3] =
    [Code::EVEX_Vpmovdw_xmmm64_k1z_xmm, Code::EVEX_Vpmovdw_xmmm128_k1z_ymm, Code::EVEX_Vpmovdw_ymmm256_k1z_zmm];

/// Store as binary16.
pub(super) const TO_HALF: [Code; 3] = [
    Code::EVEX_Vcvtps2ph_xmmm64_k1z_xmm_imm8,
    Code::EVEX_Vcvtps2ph_xmmm128_k1z_ymm_imm8,
    Code::EVEX_Vcvtps2ph_ymmm256_k1z_zmm_imm8_sae,
];

/// Conversion Vcvttps2dq.
pub(super) const F2I: [Code; 3] = [
    Code::EVEX_Vcvttps2dq_xmm_k1z_xmmm128b32,
    Code::EVEX_Vcvttps2dq_ymm_k1z_ymmm256b32,
    Code::EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae,
];

/// Conversion Vcvttps2udq.
pub(super) const F2U: [Code; 3] = [
    Code::EVEX_Vcvttps2udq_xmm_k1z_xmmm128b32,
    Code::EVEX_Vcvttps2udq_ymm_k1z_ymmm256b32,
    Code::EVEX_Vcvttps2udq_zmm_k1z_zmmm512b32_sae,
];

/// Conversion Vcvtdq2ps.
pub(super) const I2F: [Code; 3] = [
    Code::EVEX_Vcvtdq2ps_xmm_k1z_xmmm128b32,
    Code::EVEX_Vcvtdq2ps_ymm_k1z_ymmm256b32,
    Code::EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er,
];

/// Conversion Vcvtudq2ps.
pub(super) const U2F: [Code; 3] = [
    Code::EVEX_Vcvtudq2ps_xmm_k1z_xmmm128b32,
    Code::EVEX_Vcvtudq2ps_ymm_k1z_ymmm256b32,
    Code::EVEX_Vcvtudq2ps_zmm_k1z_zmmm512b32_er,
];

/// Equal integers, as all ones; AVX2 alone.
pub(super) const IEQ: [Code; 2] = [Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128, Code::VEX_Vpcmpeqd_ymm_ymm_ymmm256];

/// Greater signed integers, as all ones; AVX2 alone.
pub(super) const IGT: [Code; 2] = [Code::VEX_Vpcmpgtd_xmm_xmm_xmmm128, Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256];

/// Not the first, but the second; AVX2 alone.
pub(super) const IANDN: [Code; 2] = [Code::VEX_Vpandn_xmm_xmm_xmmm128, Code::VEX_Vpandn_ymm_ymm_ymmm256];

/// The first where a mask isn't set, else the second; AVX2 alone.
pub(super) const BLENDV: [Code; 2] = [Code::VEX_Vblendvps_xmm_xmm_xmmm128_xmm, Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm];

/// Load under a mask; AVX2 alone.
pub(super) const MASKED_LOAD: [Code; 2] = [Code::VEX_Vmaskmovps_xmm_xmm_m128, Code::VEX_Vmaskmovps_ymm_ymm_m256];

/// Store under a mask; AVX2 alone.
pub(super) const MASKED_STORE: [Code; 2] = [Code::VEX_Vmaskmovps_m128_xmm_xmm, Code::VEX_Vmaskmovps_m256_ymm_ymm];

/// Or of the bits of floats; AVX2 alone.
pub(super) const FOR: [Code; 2] = [Code::VEX_Vorps_xmm_xmm_xmmm128, Code::VEX_Vorps_ymm_ymm_ymmm256];

/// Sums of four products of unsigned bytes with signed ones.
pub(super) const DOT_BYTES: [Code; 3] = [
    Code::EVEX_Vpdpbusd_xmm_k1z_xmm_xmmm128b32,
    Code::EVEX_Vpdpbusd_ymm_k1z_ymm_ymmm256b32,
    Code::EVEX_Vpdpbusd_zmm_k1z_zmm_zmmm512b32,
];

/// Sums of two products of signed 16-bit integers.
pub(super) const MULTIPLY_WORDS: [Code; 3] = [
    Code::EVEX_Vpmaddwd_xmm_k1z_xmm_xmmm128,
    Code::EVEX_Vpmaddwd_ymm_k1z_ymm_ymmm256,
    Code::EVEX_Vpmaddwd_zmm_k1z_zmm_zmmm512,
];

/// Shift of 16-bit integers by a constant, left.
pub(super) const WORDS_SHL_IMM: [Code; 3] = [
    Code::EVEX_Vpsllw_xmm_k1z_xmmm128_imm8,
    Code::EVEX_Vpsllw_ymm_k1z_ymmm256_imm8,
    Code::EVEX_Vpsllw_zmm_k1z_zmmm512_imm8,
];

/// Arithmetic shift of 16-bit integers by a constant, right.
pub(super) const WORDS_SHRS_IMM: [Code; 3] = [
    Code::EVEX_Vpsraw_xmm_k1z_xmmm128_imm8,
    Code::EVEX_Vpsraw_ymm_k1z_ymmm256_imm8,
    Code::EVEX_Vpsraw_zmm_k1z_zmmm512_imm8,
];

/// Logical shift of 16-bit integers by a constant, right.
pub(super) const WORDS_SHRU_IMM: [Code; 3] = [
    Code::EVEX_Vpsrlw_xmm_k1z_xmmm128_imm8,
    Code::EVEX_Vpsrlw_ymm_k1z_ymmm256_imm8,
    Code::EVEX_Vpsrlw_zmm_k1z_zmmm512_imm8,
];

/// Absolute values of bytes; AVX2 alone.
pub(super) const ABS_BYTES: [Code; 2] = [Code::VEX_Vpabsb_xmm_xmmm128, Code::VEX_Vpabsb_ymm_ymmm256];

/// Bytes times the signs of others; AVX2 alone.
pub(super) const SIGN_BYTES: [Code; 2] = [Code::VEX_Vpsignb_xmm_xmm_xmmm128, Code::VEX_Vpsignb_ymm_ymm_ymmm256];

/// Sums of two products of unsigned bytes with signed ones, saturated to 16 bits; AVX2 alone.
pub(super) const MULTIPLY_BYTES: [Code; 2] =
    [Code::VEX_Vpmaddubsw_xmm_xmm_xmmm128, Code::VEX_Vpmaddubsw_ymm_ymm_ymmm256];
