//! Writes static libraries: `ar` archives with a symbol index, in the two dialects that linkers want.
//!
//! The same members give the same bytes: times, owners and modes are constants.

use std::io::{self, Write};
use std::string::String;
use std::vec::Vec;

/// The dialect of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GNU's, for ELF and COFF objects: the index is the member `/`.
    Gnu,
    /// Darwin's, for Mach-O objects: the index is `__.SYMDEF`, and members are aligned to 8 bytes.
    Darwin,
}

/// An object file in an archive.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The file name, without a folder.
    pub name: &'a str,
    /// The contents.
    pub data: &'a [u8],
    /// The global symbols that the object defines, spelled as in its symbol table.
    pub symbols: Vec<String>,
}

/// The symbols that the stub defines, without the leading underscore that Mach-O adds.
pub const STUB_SYMBOLS: [&str; 5] =
    ["bertc_cpu_features", "bertc_default_options", "bertc_pool_create", "bertc_pool_destroy", "bertc_pool_parallel"];

/// Writes `libbertc_rt.a`: the stub's object for the triple `target` as the only member.
///
/// # Errors
///
/// Those of [`write()`].
pub fn write_stub(out: &mut impl Write, target: &str, object: &[u8]) -> io::Result<()> {
    let apple = target.contains("-apple-");
    let format = if apple { Format::Darwin } else { Format::Gnu };
    let symbols = STUB_SYMBOLS.iter().map(|name| if apple { std::format!("_{name}") } else { String::from(*name) });
    write(out, format, &[Member { name: "bertc_rt.o", data: object, symbols: symbols.collect() }])
}

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

/// Writes an archive with the members in the given order.
///
/// # Errors
///
/// Those of `out`; `InvalidInput` where a member starts beyond 4 GiB, which the index can't say, or where a name has a
/// `/`, a newline or a NUL.
pub fn write(out: &mut impl Write, format: Format, members: &[Member<'_>]) -> io::Result<()> {
    for name in members.iter().map(|member| member.name) {
        if name.is_empty() || name.contains(['/', '\n', '\0']) {
            return Err(invalid(&std::format!("`{name}` can't name a member of an archive")));
        }
    }
    out.write_all(MAGIC)?;
    match format {
        Format::Gnu => write_gnu(out, members),
        Format::Darwin => write_darwin(out, members),
    }
}

fn write_gnu(out: &mut impl Write, members: &[Member<'_>]) -> io::Result<()> {
    // Names that don't fit the header with their final slash go to the member `//`.
    let mut long = Vec::new();
    let names: Vec<String> = members
        .iter()
        .map(|member| {
            if member.name.len() < 16 {
                return std::format!("{}/", member.name);
            }
            let at = long.len();
            long.extend_from_slice(member.name.as_bytes());
            long.extend_from_slice(b"/\n");
            std::format!("/{at}")
        })
        .collect();

    let strings: Vec<u8> = symbols(members).flat_map(|(_, symbol)| [symbol.as_bytes(), b"\0"].concat()).collect();
    let index_size = 4 + 4 * symbols(members).count() as u64 + strings.len() as u64;
    let mut start = MAGIC.len() as u64 + HEADER + even(index_size);
    if !long.is_empty() {
        start += HEADER + even(long.len() as u64);
    }
    let starts = starts(members, start, |member| even(member.data.len() as u64))?;

    let mut index = Vec::new();
    index.extend_from_slice(&to_u32(symbols(members).count() as u64)?.to_be_bytes());
    for (member, _) in symbols(members) {
        index.extend_from_slice(&starts[member].to_be_bytes());
    }
    index.extend_from_slice(&strings);
    write_header(out, "/", index.len() as u64)?;
    write_padded(out, &index, 2)?;
    if !long.is_empty() {
        write_header(out, "//", long.len() as u64)?;
        write_padded(out, &long, 2)?;
    }
    for (member, name) in members.iter().zip(&names) {
        write_header(out, name, member.data.len() as u64)?;
        write_padded(out, member.data, 2)?;
    }
    Ok(())
}

fn write_darwin(out: &mut impl Write, members: &[Member<'_>]) -> io::Result<()> {
    // A name follows its header and counts as contents; its padding aligns the object, whose own padding counts too.
    let mut strings = Vec::new();
    let mut names = Vec::new();
    for (member, symbol) in symbols(members) {
        names.push((to_u32(strings.len() as u64)?, member));
        strings.extend_from_slice(symbol.as_bytes());
        strings.push(0);
    }
    strings.resize(strings.len().next_multiple_of(8), 0);
    let index_size = 8 + 8 * names.len() as u64 + strings.len() as u64;
    let index_name = darwin_name("__.SYMDEF");
    let start = MAGIC.len() as u64 + HEADER + index_name.len() as u64 + index_size;
    let size =
        |member: &Member<'_>| darwin_name(member.name).len() as u64 + (member.data.len() as u64).next_multiple_of(8);
    let starts = starts(members, start, size)?;

    write_header(out, &std::format!("#1/{}", index_name.len()), index_name.len() as u64 + index_size)?;
    out.write_all(&index_name)?;
    out.write_all(&to_u32(8 * names.len() as u64)?.to_le_bytes())?;
    for (name, member) in names {
        out.write_all(&name.to_le_bytes())?;
        out.write_all(&starts[member].to_le_bytes())?;
    }
    out.write_all(&to_u32(strings.len() as u64)?.to_le_bytes())?;
    out.write_all(&strings)?;
    for member in members {
        let name = darwin_name(member.name);
        write_header(out, &std::format!("#1/{}", name.len()), size(member))?;
        out.write_all(&name)?;
        write_padded(out, member.data, 8)?;
    }
    Ok(())
}

/// The name with at least one NUL, and so many that an object is aligned to 8: its header is, and has 60 bytes.
fn darwin_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::from(name.as_bytes());
    bytes.resize((bytes.len() + 1 + 4).next_multiple_of(8) - 4, 0);
    bytes
}

/// The symbols with their members' positions in the list.
fn symbols<'a>(members: &'a [Member<'_>]) -> impl Iterator<Item = (usize, &'a str)> {
    members.iter().enumerate().flat_map(|(i, member)| member.symbols.iter().map(move |symbol| (i, symbol.as_str())))
}

/// Where each member's header is.
fn starts(members: &[Member<'_>], mut at: u64, size: impl Fn(&Member<'_>) -> u64) -> io::Result<Vec<u32>> {
    let mut starts = Vec::new();
    for member in members {
        starts.push(to_u32(at)?);
        at += HEADER + size(member);
    }
    Ok(starts)
}

fn write_header(out: &mut impl Write, name: &str, size: u64) -> io::Result<()> {
    if size > 9_999_999_999 {
        return Err(invalid("a member of an archive can't have more than ten digits of bytes"));
    }
    writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 644)
}

fn write_padded(out: &mut impl Write, data: &[u8], align: usize) -> io::Result<()> {
    out.write_all(data)?;
    let padding = data.len().next_multiple_of(align) - data.len();
    out.write_all(&b"\n\n\n\n\n\n\n\n"[..padding])
}

fn even(size: u64) -> u64 {
    size.next_multiple_of(2)
}

fn to_u32(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| invalid("a static library can't be larger than 4 GiB; use an object file"))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
