//! Every fault that a backend can have, against what can be done about it: another backend is healthy, none
//! is, none is and there is a copy.

mod kinds;
mod matrix;
mod others;
