//! Walking the notes of a PT_NOTE segment.

use super::fields::Fields;

/// Finds the first note of an owner and type that `read` can make something of. Others are passed over; a malformed
/// rest ends the search.
pub(crate) fn find<T>(notes: &[u8], owner: &[u8], kind: u32, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut rest = notes;
    while let Some((head, body)) = rest.split_at_checked(12) {
        let head = Fields(head);
        let name_len = usize::try_from(head.u32(0)).ok()?;
        let description_len = usize::try_from(head.u32(4)).ok()?;
        let (name, body) = body.split_at_checked(name_len.checked_next_multiple_of(4)?)?;
        let (description, body) = body.split_at_checked(description_len.checked_next_multiple_of(4)?)?;
        let wanted = head.u32(8) == kind && name.get(..name_len)?.strip_suffix(b"\0") == Some(owner);
        if wanted && let Some(found) = read(description.get(..description_len)?) {
            return Some(found);
        }
        rest = body;
    }
    None
}
