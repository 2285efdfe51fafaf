//! One test for each ◆ rule of the design that today's core knows.
