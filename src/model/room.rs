//! Room for what is needed while settings are read and never again.

/// The size from which on the allocator of glibc asks the system for a block of its own.
const BLOCK_BYTES_MIN: usize = 128 * 1024;

/// A block that is given back signals to glibc that blocks of its size come and go: it takes the next ones out of its heap,
/// and keeps up to twice as much free memory at the end of that for itself (mallopt(3), `M_MMAP_THRESHOLD`). It learns
/// nothing from blocks above 32 MiB. Of a block only what is touched takes memory.
const UNNOTICED_BYTES: usize = 33 * 1024 * 1024;

/// Room for so many values; when it is dropped, all of its memory goes back to the system.
pub(crate) fn passing<T>(count: usize) -> Vec<T> {
    let size = size_of::<T>().max(1);
    let count = match count.saturating_mul(size) {
        bytes if bytes < BLOCK_BYTES_MIN => count,
        _ => count.max(UNNOTICED_BYTES / size),
    };
    let mut values = Vec::new();
    // Where so much cannot be had, it grows with what is put in.
    let _ = values.try_reserve_exact(count);
    values
}

#[cfg(test)]
mod tests {
    use super::{UNNOTICED_BYTES, passing};

    #[test]
    fn there_is_room_for_all() {
        for count in [0, 1, 1000, 100_000, 10_000_000] {
            assert!(passing::<u64>(count).capacity() >= count, "{count}");
        }
    }

    #[test]
    fn a_block_is_small_or_larger_than_any_that_is_learned_from() {
        assert_eq!(passing::<u64>(100).capacity(), 100);
        assert!(passing::<u64>(100_000).capacity() * 8 > UNNOTICED_BYTES - 8);
        assert!(passing::<()>(usize::MAX).is_empty() && passing::<u64>(usize::MAX).is_empty());
    }
}
