//! Looking inside: which neurons fire, what they read and say, what the state holds.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `trace` | the neurons of a text, as sparse rows |
//! | `replay` | what every token reads: the state rebuilt from the neurons, contributions, sources |
//! | `weights` | the rows of weights that this needs, on the host |
//! | `effects` | what a neuron says by itself |
//! | `concept` | neurons and synapses that tell texts about a concept from others |
//! | `statistics` | whether a neuron tells two kinds of text apart |
//! | `intervention` | what changes where neurons are edited or a token is forgotten |
//! | `text_page` | the data of a text's page |
//! | `series` | chosen neurons in full, for that page |
//! | `document` | the document around a page's data |
//! | `atlas` | the atlas of a corpus: every neuron's page |
//! | `labels` | names that people give to neurons |
//! | `html` | texts of others in HTML |
//! | `arrays` | numbers in JSON |
//! | `page/` | the code of pages |
//!
//! u and g are what the device computed. Everything else is computed from them and from the
//! weights, on the host.

mod arrays;
pub mod atlas;
pub mod concept;
mod document;
mod effects;
mod html;
pub mod intervention;
mod labels;
mod replay;
mod series;
pub mod statistics;
mod text_page;
mod trace;
mod weights;

pub use document::{FORMAT, PageText, SCRIPT, STYLE};
pub use effects::{Effects, Readout};
pub use html::escape_html;
pub use labels::{LabelError, labels};
pub use replay::{Contribution, Reading, Replay, Source, Synapse, Writer};
pub use text_page::{text_data, text_page};
pub use trace::{Csr, Expectation, Trace};
pub use weights::HostWeights;
