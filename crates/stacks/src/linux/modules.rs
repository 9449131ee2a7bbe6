//! Which file of the program an address is from: all that a program without names has to tell.

use std::fs;

/// The files that are mapped into this process, as `/proc/self/maps` lists them.
pub(super) struct Modules(Vec<Mapping>);

struct Mapping {
    start: usize,
    end: usize,
    path: String,
}

impl Modules {
    /// Those of now.
    pub(super) fn mapped() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self::of(&maps)
    }

    fn of(maps: &str) -> Self {
        Self(maps.lines().filter_map(mapping).collect())
    }

    /// A file and the address in it that `addr2line` and debuggers take, such as `backstop+0x1f00`.
    pub(super) fn place(&self, address: usize) -> Option<String> {
        let within = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&address);
        let found = self.0.iter().find(within)?;
        // Its first part lies where the file was loaded.
        let first = self.0.iter().find(|mapping| mapping.path == found.path)?;
        let name = found.path.rsplit('/').next()?;
        Some(format!("{name}+{:#x}", address - first.start))
    }
}

/// A line such as `7f01-7f02 r-xp 00000000 fe:01 1234   /usr/lib/libc.so.6`.
fn mapping(line: &str) -> Option<Mapping> {
    let (range, _) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let path = &line[line.find('/')?..];
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_by_its_file() {
        let maps = "1000-2000 r--p 00000000 fe:01 7    /usr/bin/backstop\n\
                    2000-4000 r-xp 00001000 fe:01 7    /usr/bin/backstop\n\
                    5000-6000 rw-p 00000000 00:00 0 \n";
        let modules = Modules::of(maps);
        assert_eq!(modules.place(0x2f00).as_deref(), Some("backstop+0x1f00"));
        assert_eq!(modules.place(0x5100), None);
        assert_eq!(modules.place(0x4000), None);
    }
}
