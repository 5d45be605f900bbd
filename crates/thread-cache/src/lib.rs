//! 208 bins of free objects per thread, bounded in bytes.
#![no_std]
