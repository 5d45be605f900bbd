//! Per size class: a transfer cache of batches and span lists by occupancy.
#![no_std]
