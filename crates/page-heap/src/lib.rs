//! Spans of pages: splitting, coalescing, memory from and back to the operating system.
#![no_std]
