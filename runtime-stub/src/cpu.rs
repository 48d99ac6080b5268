//! CPU features for objects that choose between variants.
//!
//! x86-64 objects ask CPUID themselves. AArch64 has no instruction that user code may use everywhere, so the operating
//! system is asked here, and the answer travels in `bertc_options`.

use crate::abi::Options;
use core::mem::size_of;

/// The `BERTC_CPU_*` bits of this machine (see [`crate::abi::cpu_feature`]); 0 on x86-64.
#[unsafe(no_mangle)]
pub extern "C" fn bertc_cpu_features() -> u64 {
    detect()
}

/// Fills `*options` with the defaults for this machine. Null is ignored.
///
/// # Safety
///
/// `options` is null or points to memory for a [`Options`]; it needs not be initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertc_default_options(options: *mut Options) {
    if !options.is_null() {
        let defaults = Options { size: size_of::<Options>() as u32, flags: 0, cpu_features: detect() };
        // SAFETY: the caller gives memory for one `Options`.
        unsafe { options.write(defaults) };
    }
}

#[cfg(all(target_arch = "aarch64", any(target_os = "linux", target_os = "android")))]
fn detect() -> u64 {
    use crate::abi::cpu_feature::{BF16, DOTPROD, I8MM};
    use core::ffi::c_ulong;

    unsafe extern "C" {
        safe fn getauxval(key: c_ulong) -> c_ulong;
    }
    // Linux's uapi: linux/auxvec.h and asm/hwcap.h of arm64.
    const AT_HWCAP: c_ulong = 16;
    const AT_HWCAP2: c_ulong = 26;
    const HWCAP_ASIMDDP: c_ulong = 1 << 20;
    const HWCAP2_I8MM: c_ulong = 1 << 13;
    const HWCAP2_BF16: c_ulong = 1 << 14;

    let (hwcap, hwcap2) = (getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
    let bit = |word: c_ulong, mask: c_ulong, feature: u64| if word & mask != 0 { feature } else { 0 };
    bit(hwcap, HWCAP_ASIMDDP, DOTPROD) | bit(hwcap2, HWCAP2_I8MM, I8MM) | bit(hwcap2, HWCAP2_BF16, BF16)
}

#[cfg(all(target_arch = "aarch64", target_vendor = "apple"))]
fn detect() -> u64 {
    use crate::abi::cpu_feature::{BF16, DOTPROD, I8MM};
    use core::ffi::{CStr, c_char, c_int, c_void};

    unsafe extern "C" {
        fn sysctlbyname(
            name: *const c_char,
            old: *mut c_void,
            old_len: *mut usize,
            new: *mut c_void,
            new_len: usize,
        ) -> c_int;
    }
    let bit = |name: &CStr, feature: u64| {
        let mut value: c_int = 0;
        let mut len = size_of::<c_int>();
        // SAFETY: `name` is NUL-terminated, `value` has `len` bytes, and nothing new is set.
        let status =
            unsafe { sysctlbyname(name.as_ptr(), (&raw mut value).cast(), &mut len, core::ptr::null_mut(), 0) };
        if status == 0 && value != 0 { feature } else { 0 }
    };
    bit(c"hw.optional.arm.FEAT_DotProd", DOTPROD)
        | bit(c"hw.optional.arm.FEAT_I8MM", I8MM)
        | bit(c"hw.optional.arm.FEAT_BF16", BF16)
}

#[cfg(all(target_arch = "aarch64", windows))]
fn detect() -> u64 {
    unsafe extern "system" {
        safe fn IsProcessorFeaturePresent(feature: u32) -> i32;
    }
    // Only the dot product: older systems give no answer for the others, and 0 is always safe.
    const PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE: u32 = 43;
    if IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE) != 0 {
        crate::abi::cpu_feature::DOTPROD
    } else {
        0
    }
}

#[cfg(not(all(
    target_arch = "aarch64",
    any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)
)))]
fn detect() -> u64 {
    0
}
