//! Files that a configuration names: read whole, up to a size.

use std::path::Path;

use goodgate_files::Unreadable;

/// The bytes of a file. The error names the file and what is wrong with it; `what_it_is` explains the limit.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize, what_it_is: &str) -> Result<Vec<u8>, String> {
    let named = path.display();
    goodgate_files::read_bounded(path, bytes_max as u64).map_err(|error| match error {
        Unreadable::Failed(error) => format!("{named} cannot be read: {error}"),
        Unreadable::NotRegular(kind) => format!("{named} is {kind}; allowed: a regular file"),
        Unreadable::TooLong => {
            let most = crate::quantity::show_size(bytes_max as u64);
            format!("{named} is larger than {most}, {what_it_is}")
        }
    })
}
