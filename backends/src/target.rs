//! Target machines: a triple and a CPU, and what code emission needs to know of them.

use std::str::FromStr;

use bertc_ir::Diag;
use bertc_ir::diag::did_you_mean;
use bertc_ir::kernel::DotKind;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
pub use target_lexicon::BinaryFormat;
use target_lexicon::{Architecture, OperatingSystem, Triple};

use crate::tuning::Tuning;

/// When matrices with zeros are kept as blocks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Sparsity {
    /// Where that is expected to be faster.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always, whatever it costs.
    Always,
}

impl Sparsity {
    /// Every one with its name.
    pub const ALL: [(&str, Sparsity); 3] =
        [("auto", Sparsity::Auto), ("never", Sparsity::Never), ("always", Sparsity::Always)];
}

/// Vector units, as far as they decide whether blocks are faster than packed matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VectorUnits {
    /// Of 128 bits.
    Narrow,
    /// Of 256 bits.
    Avx2,
    /// Of 512 bits, one multiply-add a cycle: a load for each costs nothing.
    Avx512,
    /// Of 512 bits, two multiply-adds a cycle.
    TwoAvx512,
    /// Of 512 bits; the code is for CPUs with one and with two.
    AnyAvx512,
}

/// A CPU feature of x86-64 and how CPUID reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X86Feature {
    /// Name, for example `avx2`; Cranelift's setting is `has_` before it, where it has one (`clif_setting`).
    pub name: &'static str,
    /// CPUID leaf (EAX).
    pub leaf: u32,
    /// Its subleaf (ECX).
    pub subleaf: u32,
    /// Which of EAX, EBX, ECX, EDX (0 to 3) has the bit.
    pub register: u8,
    /// The bit.
    pub bit: u8,
    /// Bits of XCR0 that the operating system must have set (0 when XGETBV need not be asked).
    pub xcr0: u32,
}

/// XCR0: SSE and AVX state.
const YMM: u32 = 0b110;
/// XCR0: SSE, AVX and AVX-512 state.
const ZMM: u32 = 0b1110_0110;

const fn feature(name: &'static str, leaf: u32, register: u8, bit: u8, xcr0: u32) -> X86Feature {
    X86Feature { name, leaf, subleaf: 0, register, bit, xcr0 }
}

/// Every feature that emitted code may use, from the Intel SDM, volume 2, CPUID. `lzcnt` is from AMD's volume 3.
pub const X86_FEATURES: &[X86Feature] = &[
    feature("sse3", 1, 2, 0, 0),
    feature("ssse3", 1, 2, 9, 0),
    feature("sse41", 1, 2, 19, 0),
    feature("sse42", 1, 2, 20, 0),
    feature("popcnt", 1, 2, 23, 0),
    feature("avx", 1, 2, 28, YMM),
    feature("avx2", 7, 1, 5, YMM),
    feature("fma", 1, 2, 12, YMM),
    feature("f16c", 1, 2, 29, YMM),
    feature("bmi1", 7, 1, 3, 0),
    feature("bmi2", 7, 1, 8, 0),
    feature("lzcnt", 0x8000_0001, 2, 5, 0),
    feature("avx512f", 7, 1, 16, ZMM),
    feature("avx512dq", 7, 1, 17, ZMM),
    feature("avx512bw", 7, 1, 30, ZMM),
    feature("avx512vl", 7, 1, 31, ZMM),
    feature("avx512vbmi", 7, 2, 1, ZMM),
    feature("avx512vnni", 7, 2, 11, ZMM),
    feature("avx512bitalg", 7, 2, 12, ZMM),
    X86Feature { subleaf: 1, ..feature("avx512bf16", 7, 0, 5, ZMM) },
    X86Feature { subleaf: 1, ..feature("avxvnni", 7, 0, 4, YMM) },
];

/// How many of [`X86_FEATURES`] the psABI's levels v2, v3 and v4 have, Ice Lake, and Zen 4.
const V2: usize = 5;
const V3: usize = 12;
const V4: usize = 16;
const ICELAKE: usize = 19;
const ZEN4: usize = 20;

/// A CPU of x86-64: its name, its number of features, a prefix of [`X86_FEATURES`], and what it has beyond.
type X86Cpu = (&'static str, usize, &'static [&'static str]);

/// What some CPUs have beyond such a prefix: dot products of bytes in VEX forms, and in EVEX forms.
const VEX_VNNI: &[&str] = &["avxvnni"];
const EVEX_VNNI: &[&str] = &["avx512vnni"];

const X86_CPUS: &[X86Cpu] = &[
    ("generic", 0, &[]),
    ("x86-64", 0, &[]),
    ("x86-64-v2", V2, &[]),
    ("nehalem", V2, &[]),
    ("westmere", V2, &[]),
    ("silvermont", V2, &[]),
    ("goldmont", V2, &[]),
    ("x86-64-v3", V3, &[]),
    ("haswell", V3, &[]),
    ("broadwell", V3, &[]),
    ("skylake", V3, &[]),
    ("alderlake", V3, VEX_VNNI),
    ("raptorlake", V3, VEX_VNNI),
    ("znver1", V3, &[]),
    ("znver2", V3, &[]),
    ("znver3", V3, &[]),
    ("x86-64-v4", V4, &[]),
    ("skylake-avx512", V4, &[]),
    ("cascadelake", V4, EVEX_VNNI),
    ("icelake-server", ICELAKE, &[]),
    ("sapphirerapids", ZEN4, VEX_VNNI),
    ("graniterapids", ZEN4, VEX_VNNI),
    ("znver4", ZEN4, &[]),
    ("znver5", ZEN4, VEX_VNNI),
];

/// CPUs with two multiply-adds of 512 bits a cycle: Intel's for servers, and AMD's from Zen 5 on.
const TWO_AVX512: &[&str] =
    &["skylake-avx512", "cascadelake", "icelake-server", "sapphirerapids", "graniterapids", "znver5"];

/// What a program multiplies beside f32: which instructions make a difference to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Pairs of bf16.
    pub bf16: bool,
    /// Bytes.
    pub int8: bool,
}

/// A CPU of a generic object, and which programs have a variant for it.
pub type X86Variant = (&'static str, fn(Needs) -> bool);

/// The CPUs of a generic object.
pub const X86_VARIANTS: &[X86Variant] = &[
    ("x86-64", |_| true),
    ("x86-64-v3", |_| true),
    ("alderlake", |n| n.int8),
    ("x86-64-v4", |_| true),
    ("cascadelake", |n| n.int8),
    ("znver4", |n| n.bf16),
];

/// CPUs of AArch64 with the optional instructions they have.
const A64_CPUS: &[(&str, &[&str])] = &[
    ("generic", &[]),
    ("cortex-a53", &[]),
    ("cortex-a72", &[]),
    ("cortex-a55", &["dotprod"]),
    ("cortex-a76", &["dotprod"]),
    ("cortex-a78", &["dotprod"]),
    ("cortex-x1", &["dotprod"]),
    ("neoverse-n1", &["dotprod"]),
    ("neoverse-v1", &["dotprod", "i8mm"]),
    ("neoverse-n2", &["dotprod", "i8mm"]),
    ("neoverse-v2", &["dotprod", "i8mm"]),
    ("apple-m1", &["dotprod"]),
    ("apple-m2", &["dotprod", "i8mm"]),
    ("apple-m3", &["dotprod", "i8mm"]),
    ("apple-m4", &["dotprod", "i8mm"]),
];

/// What makes machine code of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Emitter {
    /// Emitters with the widest registers of the target; Cranelift where there is none and for what is generic.
    #[default]
    Auto,
    /// Cranelift only, with registers of 128 bits.
    Clif,
}

impl Emitter {
    /// Every emitter with its name.
    pub const ALL: [(&str, Emitter); 2] = [("auto", Emitter::Auto), ("clif", Emitter::Clif)];
}

/// A machine to compile for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// What makes machine code of kernels.
    pub emitter: Emitter,
    /// Architecture, operating system, object format.
    pub triple: Triple,
    /// Name of the CPU as given, `native` included.
    pub cpu: String,
    /// What products are fastest with; nothing for what is usual.
    pub tuning: Tuning,
    /// When matrices with zeros are kept as blocks.
    pub sparsity: Sparsity,
    /// Of a variant of an object: see [`Target::decisive_units`].
    decisive_units: Option<VectorUnits>,
    features: Vec<&'static str>,
}

impl Target {
    /// The target named by `target` (`native`, `x86_64`, `aarch64` or a triple) and `cpu` (`generic`, `native` or a name).
    ///
    /// # Errors
    /// An unknown or unsupported triple or CPU; `native` for another architecture than this machine's.
    pub fn parse(target: &str, cpu: &str) -> Result<Target, Diag> {
        let triple = parse_triple(target)?;
        let features = match triple.architecture {
            Architecture::X86_64 => x86_features(&triple, cpu)?,
            _ => a64_features(&triple, cpu)?,
        };
        Ok(Target {
            emitter: Emitter::Auto,
            triple,
            cpu: cpu.to_string(),
            tuning: Tuning::new(),
            sparsity: Sparsity::Auto,
            decisive_units: None,
            features,
        })
    }

    /// Cranelift's code generator for this target.
    ///
    /// # Errors
    /// Cranelift refuses the triple or a setting.
    pub fn isa(&self) -> Result<OwnedTargetIsa, Diag> {
        let refuse = |what: &dyn std::fmt::Display| Diag::new(format!("target '{}': {what}", self.triple));
        let mut shared = settings::builder();
        // Objects have no undefined symbols, so no stack probes. Debuggers and profilers unwind, where the format lets them.
        let unwinds = self.object_format() == BinaryFormat::Elf;
        for (name, value) in [
            ("opt_level", "speed"),
            ("is_pic", "true"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
            ("enable_probestack", "false"),
            ("unwind_info", if unwinds { "true" } else { "false" }),
            ("preserve_frame_pointers", "false"),
        ] {
            shared.set(name, value).map_err(|e| refuse(&e))?;
        }
        let mut b = isa::lookup(self.triple.clone()).map_err(|e| refuse(&e))?;
        for setting in self.features.iter().filter_map(|f| clif_setting(f)) {
            b.enable(&setting).map_err(|e| refuse(&e))?;
        }
        b.finish(settings::Flags::new(shared)).map_err(|e| refuse(&e))
    }

    /// Whether the architecture is x86-64 (else AArch64).
    pub fn is_x86_64(&self) -> bool {
        self.triple.architecture == Architecture::X86_64
    }

    /// Whether code may use `feature`, by its name in [`X86_FEATURES`] or, for AArch64, `dotprod` and `i8mm`.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    /// Whether a fused multiply-add is one instruction.
    pub fn has_fma(&self) -> bool {
        !self.is_x86_64() || self.has("fma")
    }

    /// Whether dot products of bytes are an instruction.
    pub fn has_int8(&self) -> bool {
        ["avx512vnni", "avxvnni", "dotprod"].into_iter().any(|f| self.has(f))
    }

    /// Which dot products of bytes are the fastest. On x86-64 instructions multiply unsigned ones by signed ones, and where
    /// there are none unsigned ones are widened in two steps, signed ones in three.
    pub fn fastest_int8(&self) -> DotKind {
        if self.is_x86_64() { DotKind::U8I8 } else { DotKind::I8 }
    }

    /// Number of 128-bit registers that Cranelift allocates.
    pub fn vector_registers(&self) -> usize {
        if self.is_x86_64() { 16 } else { 32 }
    }

    /// Lanes of a vector register in code that Cranelift emits.
    pub fn lanes(&self) -> u8 {
        4
    }

    /// Lanes of the widest vector register that kernels use.
    fn widest_lanes(&self) -> u8 {
        crate::emit::x86::lanes(self).filter(|_| self.emitter == Emitter::Auto).unwrap_or(self.lanes())
    }

    /// Format of the object file: ELF, Mach-O or COFF.
    pub fn object_format(&self) -> BinaryFormat {
        self.triple.binary_format
    }

    /// Features beyond baseline x86-64 that the code may use, for the entry to check; empty for `generic` and AArch64.
    pub fn required_x86_features(&self) -> Vec<X86Feature> {
        if !self.is_x86_64() {
            return Vec::new();
        }
        X86_FEATURES.iter().filter(|f| self.has(f.name)).copied().collect()
    }

    /// The vector units that kernels use.
    fn vector_units(&self) -> VectorUnits {
        let two = match self.cpu.as_str() {
            "native" => host_has_two_avx512(),
            cpu => TWO_AVX512.contains(&cpu),
        };
        match self.widest_lanes() {
            16 if two => VectorUnits::TwoAvx512,
            16 if self.cpu == "native" || self.cpu == "znver4" => VectorUnits::Avx512,
            16 => VectorUnits::AnyAvx512,
            8 => VectorUnits::Avx2,
            _ => VectorUnits::Narrow,
        }
    }

    /// The vector units for which it is decided how matrices are kept. The variants of an object decide as its widest one
    /// does, so that it holds each matrix once.
    pub fn decisive_units(&self) -> VectorUnits {
        self.decisive_units.unwrap_or_else(|| {
            let variants = self.variants(Needs { bf16: true, int8: true });
            variants.last().and_then(|t| t.decisive_units).unwrap_or_else(|| self.vector_units())
        })
    }

    /// The targets whose code an object for this one holds. Of a generic x86-64 these are the psABI's levels that make a
    /// difference, and more where a program `needs` them; of any other target it is the only one. The last one whose features
    /// are all there is the best for a CPU: each has more than the one before, but that AVX-512 makes up for AVX-VNNI.
    pub fn variants(&self, needs: Needs) -> Vec<Target> {
        if !self.is_x86_64() || self.cpu != "generic" {
            return vec![self.clone()];
        }
        let wanted = X86_VARIANTS.iter().filter(|(_, wanted)| wanted(needs));
        let mut all: Vec<Target> = wanted
            .filter_map(|&(cpu, _)| Some(Target { cpu: cpu.to_string(), features: x86_cpu(cpu)?, ..self.clone() }))
            .collect();
        // Cranelift has nothing wider than the second.
        let wide = self.emitter == Emitter::Auto && all.last().and_then(crate::emit::x86::lanes).is_some();
        if !wide {
            all.truncate(2);
        }
        // The last one's CPU is one of many that it runs on.
        let units = all.last().map(Target::vector_units);
        let units = if wide { Some(VectorUnits::AnyAvx512) } else { units };
        all.iter_mut().for_each(|t| t.decisive_units = units);
        all
    }

    /// Whether this machine can run the code: same architecture and operating system, and every feature is there.
    pub fn runs_here(&self) -> bool {
        let host = Triple::host();
        self.triple.architecture == host.architecture
            && self.triple.operating_system == host.operating_system
            && (!self.is_x86_64() || self.features.iter().all(|f| host_x86_features().contains(f)))
    }
}

fn parse_triple(target: &str) -> Result<Triple, Diag> {
    let name = match target {
        "x86_64" | "x86-64" | "amd64" => "x86_64-unknown-linux-gnu",
        "aarch64" | "arm64" => "aarch64-unknown-linux-gnu",
        t => t,
    };
    let triple = match name {
        "native" => Triple::host(),
        n => Triple::from_str(n).map_err(|e| {
            Diag::new(format!("unknown target '{target}': {e}"))
                .note("use x86_64, aarch64, native or a triple")
                .maybe_help(did_you_mean(target, ["x86_64", "amd64", "aarch64", "arm64", "native"]))
        })?,
    };
    let known = match triple.architecture {
        Architecture::X86_64 => true,
        Architecture::Aarch64(a) => a == target_lexicon::Aarch64Architecture::Aarch64,
        _ => false,
    };
    let format = match triple.binary_format {
        BinaryFormat::Elf | BinaryFormat::Macho => true,
        BinaryFormat::Coff => triple.architecture == Architecture::X86_64,
        _ => false,
    };
    if known && format {
        return Ok(triple);
    }
    Err(Diag::new(format!("unsupported target '{target}'"))
        .note("supported are x86-64 (ELF, Mach-O, COFF) and little-endian AArch64 (ELF, Mach-O)"))
}

fn x86_features(triple: &Triple, cpu: &str) -> Result<Vec<&'static str>, Diag> {
    if cpu == "native" {
        require_host(triple)?;
        return Ok(host_x86_features());
    }
    x86_cpu(cpu).ok_or_else(|| {
        let names: Vec<&str> = X86_CPUS.iter().map(|c| c.0).collect();
        unknown_cpu(cpu, "x86-64", &names)
    })
}

/// The features of a CPU that has a name, in the order of [`X86_FEATURES`].
fn x86_cpu(cpu: &str) -> Option<Vec<&'static str>> {
    let &(_, count, more) = X86_CPUS.iter().find(|c| c.0 == cpu)?;
    let has = |(i, f): &(usize, &X86Feature)| *i < count || more.contains(&f.name);
    Some(X86_FEATURES.iter().enumerate().filter(has).map(|(_, f)| f.name).collect())
}

/// Cranelift's setting for a feature; it has none for some of which it emits nothing.
fn clif_setting(feature: &str) -> Option<String> {
    match feature {
        "avx512bw" | "f16c" | "avx512bf16" => None,
        "avxvnni" => Some("has_avx_vnni".to_string()),
        f => Some(format!("has_{f}")),
    }
}

fn a64_features(triple: &Triple, cpu: &str) -> Result<Vec<&'static str>, Diag> {
    if cpu == "native" {
        require_host(triple)?;
        return Ok(host_a64_features());
    }
    // Every Mac has at least the M1's instructions.
    let mac = matches!(triple.operating_system, OperatingSystem::MacOSX(_) | OperatingSystem::Darwin(_));
    let cpu = if mac && cpu == "generic" { "apple-m1" } else { cpu };
    A64_CPUS.iter().find(|c| c.0 == cpu).map(|c| c.1.to_vec()).ok_or_else(|| {
        let names: Vec<&str> = A64_CPUS.iter().map(|c| c.0).collect();
        unknown_cpu(cpu, "aarch64", &names)
    })
}

fn unknown_cpu(cpu: &str, target: &str, names: &[&str]) -> Diag {
    Diag::new(format!("unknown cpu '{cpu}' for {target}"))
        .note(format!("known are native, {}", names.join(", ")))
        .maybe_help(did_you_mean(cpu, names.iter().copied().chain(["native"])))
}

fn require_host(triple: &Triple) -> Result<(), Diag> {
    let host = Triple::host();
    if triple.architecture == host.architecture {
        return Ok(());
    }
    Err(Diag::new(format!("cpu 'native' is of {}, but the target is {}", host.architecture, triple.architecture))
        .note("name the cpu, or use generic"))
}

#[cfg(target_arch = "x86_64")]
fn host_x86_features() -> Vec<&'static str> {
    let has = |name: &str| match name {
        "sse3" => is_x86_feature_detected!("sse3"),
        "ssse3" => is_x86_feature_detected!("ssse3"),
        "sse41" => is_x86_feature_detected!("sse4.1"),
        "sse42" => is_x86_feature_detected!("sse4.2"),
        "popcnt" => is_x86_feature_detected!("popcnt"),
        "avx" => is_x86_feature_detected!("avx"),
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        "f16c" => is_x86_feature_detected!("f16c"),
        "bmi1" => is_x86_feature_detected!("bmi1"),
        "bmi2" => is_x86_feature_detected!("bmi2"),
        "lzcnt" => is_x86_feature_detected!("lzcnt"),
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512dq" => is_x86_feature_detected!("avx512dq"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        "avx512vbmi" => is_x86_feature_detected!("avx512vbmi"),
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        "avx512bitalg" => is_x86_feature_detected!("avx512bitalg"),
        "avx512bf16" => is_x86_feature_detected!("avx512bf16"),
        "avxvnni" => is_x86_feature_detected!("avxvnni"),
        _ => false,
    };
    X86_FEATURES.iter().map(|f| f.name).filter(|n| has(n)).collect()
}

/// Whether this machine's CPU is one of [`TWO_AVX512`], or Intel's without a name here. Zen 5 has AVX-VNNI, Zen 4 hasn't.
#[cfg(target_arch = "x86_64")]
fn host_has_two_avx512() -> bool {
    let maker = std::arch::x86_64::__cpuid(0);
    let intel = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel";
    is_x86_feature_detected!("avx512f") && (intel || is_x86_feature_detected!("avxvnni"))
}

#[cfg(not(target_arch = "x86_64"))]
fn host_has_two_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn host_x86_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(target_arch = "aarch64")]
fn host_a64_features() -> Vec<&'static str> {
    let mut f = Vec::new();
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        f.push("dotprod");
    }
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        f.push("i8mm");
    }
    f
}

#[cfg(not(target_arch = "aarch64"))]
fn host_a64_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_linux() {
        let t = Target::parse("aarch64", "generic").unwrap();
        assert_eq!(t.triple.to_string(), "aarch64-unknown-linux-gnu");
        assert_eq!((t.has_fma(), t.vector_registers(), t.object_format()), (true, 32, BinaryFormat::Elf));
        let t = Target::parse("x86_64", "generic").unwrap();
        assert_eq!((t.has_fma(), t.required_x86_features().len()), (false, 0));
    }

    #[test]
    fn formats_follow_the_triple() {
        let format = |t: &str| Target::parse(t, "generic").unwrap().object_format();
        assert_eq!(format("x86_64-apple-darwin"), BinaryFormat::Macho);
        assert_eq!(format("aarch64-apple-darwin"), BinaryFormat::Macho);
        assert_eq!(format("x86_64-pc-windows-msvc"), BinaryFormat::Coff);
        for bad in ["riscv64gc-unknown-linux-gnu", "aarch64-pc-windows-msvc", "pdp11", "aarch64_be-unknown-linux-gnu"] {
            assert!(Target::parse(bad, "generic").is_err(), "{bad}");
        }
    }

    #[test]
    fn every_cpu_has_an_isa() {
        for (cpu, n, more) in X86_CPUS {
            let t = Target::parse("x86_64", cpu).unwrap();
            t.isa().unwrap();
            assert_eq!(t.required_x86_features().len(), *n + more.len(), "{cpu}");
            assert!(more.iter().all(|f| t.has(f)), "{cpu}");
        }
        for (cpu, _) in A64_CPUS {
            Target::parse("aarch64", cpu).unwrap().isa().unwrap();
        }
        Target::parse("native", "native").unwrap().isa().unwrap();
    }

    #[test]
    fn variants_are_what_a_program_needs() {
        let names = |t: &Target, bf16, int8| -> Vec<String> {
            t.variants(Needs { bf16, int8 }).into_iter().map(|t| t.cpu).collect()
        };
        let mut t = Target::parse("x86_64", "generic").unwrap();
        assert_eq!(names(&t, false, false), ["x86-64", "x86-64-v3", "x86-64-v4"]);
        assert_eq!(names(&t, true, false), ["x86-64", "x86-64-v3", "x86-64-v4", "znver4"]);
        let int8 = ["x86-64", "x86-64-v3", "alderlake", "x86-64-v4", "cascadelake"];
        assert_eq!(names(&t, false, true), int8);
        assert_eq!(names(&t, true, true), [&int8[..], &["znver4"]].concat());
        t.emitter = Emitter::Clif;
        assert_eq!(names(&t, true, true), ["x86-64", "x86-64-v3"]);
        let windows = Target::parse("x86_64-pc-windows-msvc", "generic").unwrap();
        assert_eq!(names(&windows, true, true), ["x86-64", "x86-64-v3"]);
        assert_eq!(names(&Target::parse("x86_64", "haswell").unwrap(), true, true), ["haswell"]);
        assert_eq!(names(&Target::parse("aarch64", "generic").unwrap(), true, true), ["generic"]);
    }

    #[test]
    fn matrices_are_kept_alike_in_all_variants() {
        let units = |cpu: &str| Target::parse("x86_64", cpu).unwrap().decisive_units();
        assert_eq!(
            ["x86-64-v2", "haswell", "znver4", "x86-64-v4", "sapphirerapids", "znver5", "generic"].map(units),
            [
                VectorUnits::Narrow,
                VectorUnits::Avx2,
                VectorUnits::Avx512,
                VectorUnits::AnyAvx512,
                VectorUnits::TwoAvx512,
                VectorUnits::TwoAvx512,
                VectorUnits::AnyAvx512,
            ]
        );
        let mut t = Target::parse("x86_64", "generic").unwrap();
        let all = |t: &Target| -> Vec<VectorUnits> {
            t.variants(Needs::default()).iter().map(Target::decisive_units).collect()
        };
        assert_eq!(all(&t), [VectorUnits::AnyAvx512; 3]);
        t.emitter = Emitter::Clif;
        assert_eq!(all(&t), [VectorUnits::Narrow; 2]);
        assert_eq!(Target::parse("aarch64", "generic").unwrap().decisive_units(), VectorUnits::Narrow);
    }

    /// The last variant that a CPU has all features of is the best one for it.
    #[test]
    fn every_cpu_has_its_variant() {
        let all = Target::parse("x86_64", "generic").unwrap().variants(Needs { bf16: true, int8: true });
        for (cpu, best) in [
            ("nehalem", "x86-64"),
            ("haswell", "x86-64-v3"),
            ("alderlake", "alderlake"),
            ("skylake-avx512", "x86-64-v4"),
            ("cascadelake", "cascadelake"),
            ("icelake-server", "cascadelake"),
            ("sapphirerapids", "znver4"),
            ("znver4", "znver4"),
            ("znver5", "znver4"),
        ] {
            let t = Target::parse("x86_64", cpu).unwrap();
            let chosen = all.iter().rfind(|v| v.features.iter().all(|f| t.has(f))).unwrap();
            assert_eq!(chosen.cpu, best, "{cpu}");
        }
    }

    #[test]
    fn unknown_cpus_are_named() {
        let e = Target::parse("x86_64", "cortex-a76").unwrap_err();
        assert!(e.message.contains("unknown cpu 'cortex-a76'"), "{e}");
        let e = Target::parse("x86_64", "x86-64-v33").unwrap_err().to_string();
        assert!(e.contains("did you mean 'x86-64-v3'?"), "{e}");
        let e = Target::parse("aarch46", "generic").unwrap_err().to_string();
        assert!(e.contains("did you mean 'aarch64'?"), "{e}");
    }
}
