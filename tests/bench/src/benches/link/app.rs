//! The application that `snapshot-link` runs: real Python modules that its handler imports, and real data that it keeps in memory.
//!
//! | part | what |
//! |---|---|
//! | `tables/part_NN.py`, 48 of 40 KB | a module each: a dictionary of 400 entries, three functions over it |
//! | `data/NN.bin`, 12 of 16 MiB | sorted 64-bit numbers, read into `array` objects when the handler's module is loaded |
//! | `app.py` | the handler: 300 searches in the arrays and as many in the tables, spread by a hash of the event |
//!
//! So 200 MB of it are in the guest's memory twice, as Python's objects and as the file system's cache, like those of any function
//! that loads a model or an index in its init.

use anyhow::Result;
use std::fmt::Write as _;
use tar::{Builder, Header};

const MODULES: usize = 48;
const ENTRIES: usize = 400;
/// Files of data at full size.
const FILES: usize = 12;
const FILE_BYTES: usize = 16 << 20;

const HANDLER: &str = r#"
import array, bisect, glob, hashlib, importlib, json, os

HERE = os.path.dirname(__file__)
TABLES = [importlib.import_module("tables." + os.path.basename(name)[:-3])
          for name in sorted(glob.glob(HERE + "/tables/part_*.py"))]
DATA = []
for name in sorted(glob.glob(HERE + "/data/*.bin")):
    numbers = array.array("Q")
    with open(name, "rb") as file:
        numbers.frombytes(file.read())
    DATA.append(numbers)


def handler(event, context):
    found = 0
    for step in range(300):
        key = int.from_bytes(hashlib.sha256(f"{event['key']} {step}".encode()).digest()[:8], "little")
        numbers = DATA[key % len(DATA)]
        at = bisect.bisect_left(numbers, key >> 1)
        found ^= numbers[at % len(numbers)]
        table = TABLES[key % len(TABLES)]
        found ^= table.weigh(table.name_of(key % len(table.TABLE)))
    return {"found": found, "numbers": sum(map(len, DATA)), "tables": len(TABLES)}
"#;

/// A stream of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

/// The archive of `/var/task`, with so many files of data.
pub(super) fn archive(files: usize) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes)
    };
    add("app.py", HANDLER.as_bytes())?;
    add("tables/__init__.py", b"")?;
    let mut numbers = Numbers(1);
    for module in 0..MODULES {
        add(&format!("tables/part_{module:02}.py"), part(&mut numbers)?.as_bytes())?;
    }
    for file in 0..files.min(FILES) {
        // Sorted without sorting: each is a little more than the one before.
        let step = (u64::MAX >> 1) / (FILE_BYTES as u64 / 8);
        let number = |at: u64| at * step + numbers.next() % step;
        let data: Vec<u8> = (0..FILE_BYTES as u64 / 8).map(number).flat_map(u64::to_le_bytes).collect();
        add(&format!("data/{file:02}.bin"), &data)?;
    }
    Ok(builder.into_inner()?)
}

/// One module's text.
fn part(numbers: &mut Numbers) -> Result<String> {
    let mut text = String::from("TABLE = {\n");
    for entry in 0..ENTRIES {
        let [one, other] = [numbers.next(), numbers.next()];
        writeln!(
            text,
            "    'entry {entry} {one:016x}': ({one}, {}, 'a line about {other:016x}'),",
            other >> 1
        )?;
    }
    text.push_str(
        "}\nNAMES = list(TABLE)\n\n\ndef name_of(number):\n    return NAMES[number]\n\n\n\
         def weigh(name):\n    one, other, text = TABLE[name]\n    return (one ^ other) + len(text)\n\n\n\
         def longest():\n    return max(TABLE, key=weigh)\n",
    );
    Ok(text)
}
