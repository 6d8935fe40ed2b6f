//! Files that a configuration names: read whole, up to a size.

use std::io::Read;
use std::path::Path;

/// The bytes of a file. The error names the file and what is wrong with it; `what_it_is` explains the limit.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize, what_it_is: &str) -> Result<Vec<u8>, String> {
    let named = path.display();
    let unreadable = |error: std::io::Error| format!("{named} cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max {
        let most = crate::quantity::show_size(bytes_max as u64);
        return Err(format!("{named} is larger than {most}, {what_it_is}"));
    }
    Ok(bytes)
}
