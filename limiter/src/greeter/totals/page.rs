// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Memory that the daemon and the greeter's process share: the counts, so that they are exact at any moment, also when
//! the process is killed.

use std::{
    io,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::counts::Counts;

/// How long the file is: all of a page, whose rest is unused.
const LENGTH: usize = 4096;
const _: () = assert!(size_of::<Counts>() <= LENGTH);

/// The shared memory, and the file behind it. Nobody can make the file shorter, so what is mapped stays there.
#[derive(Debug)]
pub struct Page {
    counts: NonNull<Counts>,
    file: OwnedFd,
}

// SAFETY: what it points to is atomic integers, in memory that is there as long as it is.
unsafe impl Send for Page {}
// SAFETY: the same.
unsafe impl Sync for Page {}

impl Page {
    /// New memory, all zero.
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("limiter-greeter", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, LENGTH as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file)
    }

    /// The memory behind a descriptor that [`new`](Self::new) has made.
    ///
    /// # Errors
    /// `InvalidInput` if it is something else.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) || fstat(&file)?.st_size != LENGTH as i64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map(file)
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, where the kernel finds room for it.
        let at = unsafe { mmap(ptr::null_mut(), LENGTH, prot, MapFlags::SHARED, &file, 0) }?;
        let counts = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { counts, file })
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Deref for Page {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        // SAFETY: the mapping begins at a page, is long enough, and stays as long as `self`; any bytes are atomic
        // integers.
        unsafe { self.counts.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it any more.
        let _stays_mapped_at_worst = unsafe { munmap(self.counts.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn who_has_the_descriptor_sees_and_changes_the_same_counts() {
        let page = Page::new().unwrap();
        let other = Page::open(page.as_fd().try_clone_to_owned().unwrap()).unwrap();
        other.greeted.fetch_add(7, Relaxed);
        assert_eq!(page.greeted.load(Relaxed), 7);
        drop(page);
        assert_eq!(other.greeted.fetch_add(1, Relaxed), 7);
    }

    /// One that became shorter would end the daemon by SIGBUS.
    #[test]
    fn nobody_can_make_it_shorter() {
        let page = Page::new().unwrap();
        assert!(ftruncate(&page, 0).is_err());
        assert!(Page::open(memfd_create("other", MemfdFlags::CLOEXEC).unwrap()).is_err());
    }
}
