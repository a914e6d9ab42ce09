//! Writing a model directory.
//!
//! Everything goes into a new directory beside the target, which takes the target's place only when it is
//! complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::directory::WEIGHTS_FILE;
use super::eight_bits;
use super::error::ModelError;
use super::rotary::default_freqs;
use super::safetensors::SCALES;
use super::tensor::{Dtype, Tensor};
use super::{CONFIG, GENERATION_CONFIG, Model, TRAINING_ARGS};

const README: &str = "README.md";

/// How to write a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Element type of the weights; `None` keeps what each tensor has (f64 becomes f32). Rotary
    /// frequencies are always f32.
    pub dtype: Option<Dtype>,
    /// Replace a model directory that is already there.
    pub overwrite: bool,
}

impl Model {
    /// Writes a model directory under the official names: config.json, model.safetensors,
    /// generation_config.json, README.md and, where the model has them, the tokenizer's files and
    /// training_args.json.
    ///
    /// # Errors
    /// [`ModelError::Save`] where something is in the way or the disk fails,
    /// [`ModelError::Overflow`] for a weight too large for the element type, [`ModelError::Io`] for
    /// weights that cannot be read. Nothing is left behind then, and what was there stays. A model
    /// with clamped neurons ([`Model::edit`]) cannot be written; ablated ones are weights of 0.
    pub fn save(&self, directory: impl AsRef<Path>, options: &SaveOptions) -> Result<(), ModelError> {
        if let Some(reason) = self.without_weights() {
            return Err(ModelError::Save { path: directory.as_ref().to_owned(), reason });
        }
        let target = Target::new(directory.as_ref(), options.overwrite)?;
        let name = directory.as_ref().file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| self.name.clone());
        let tensors = self.tensors(options.dtype);
        target.write(WEIGHTS_FILE, |file| write_safetensors(&tensors, file))?;
        if let Some(failure) = self.weights.failure() {
            return Err(failure);
        }
        let config = self.config_json(directory.as_ref())?;
        target.json(CONFIG, config)?;
        target.json(GENERATION_CONFIG, self.generation_json())?;
        if let Some(training_args) = &self.training_args {
            target.json(TRAINING_ARGS, training_args.clone())?;
        }
        for (file_name, contents) in self.tokenizer_files.contents() {
            target.bytes(file_name, &contents)?;
        }
        target.bytes(README, self.card(&name, &tensors).as_bytes())?;
        target.commit()
    }

    /// The tensors to write, by their official names.
    fn tensors(&self, dtype: Option<Dtype>) -> Vec<Output> {
        let w = &self.weights;
        let output = |name: &str, tensor: &Tensor| {
            let own = match tensor.dtype() {
                Dtype::F64 => Dtype::F32,
                other => other,
            };
            Output { name: name.to_owned(), tensor: tensor.clone(), dtype: dtype.unwrap_or(own) }
        };
        // Where the neurons' weights are codes, the others are halves.
        let table = |name: &str, tensor: &Tensor| match output(name, tensor) {
            Output { name, tensor, dtype: Dtype::I8 } => Output { name, tensor, dtype: Dtype::F16 },
            output => output,
        };
        let mut tensors = vec![
            table("embed.weight", &w.embed),
            output("encoder", &w.encoder),
            output("encoder_v", &w.encoder_v),
            output("decoder", &w.decoder),
            table("lm_head", &w.lm_head),
        ];
        let scales = |output: &Output| {
            let shape = eight_bits::scales_shape(output.tensor.shape())?;
            let tensor = Tensor::from_f32(&shape, output.tensor.eight_bit_scales());
            Some(Output { name: output.name.clone() + SCALES, tensor, dtype: Dtype::F32 })
        };
        let of_codes = tensors.iter().filter(|output| output.dtype == Dtype::I8);
        let scales: Vec<Output> = of_codes.filter_map(scales).collect();
        tensors.extend(scales);
        if self.stored_freqs || w.freqs != default_freqs(w.freqs.len()) {
            let freqs = Tensor::from_f32(&[1, 1, 1, w.freqs.len()], w.freqs.clone());
            tensors.push(Output { name: "attn.freqs".to_owned(), tensor: freqs, dtype: Dtype::F32 });
        }
        tensors
    }

    fn config_json(&self, directory: &Path) -> Result<Map<String, Value>, ModelError> {
        let config = &self.config;
        let multiplier = config.multiplier().ok_or_else(|| ModelError::Save {
            path: directory.join(CONFIG),
            reason: format!(
                "no mlp_internal_dim_multiplier gives {} neurons per head with n_embd {} and n_head {}",
                config.neurons_per_head, config.n_embd, config.n_head
            ),
        })?;
        let mut map = object(json!({
            "model_type": "bdh",
            "n_layer": config.n_layer,
            "n_embd": config.n_embd,
            "n_head": config.n_head,
            "mlp_internal_dim_multiplier": multiplier,
            "vocab_size": config.vocab_size,
        }));
        if let Some(texts) = self.tokenizer.texts() {
            let ids = texts.into_iter().map(|(id, text)| (text, Value::from(id)));
            map.insert("stoi".to_owned(), ids.collect::<Map<_, _>>().into());
        }
        if let Some(context) = config.trained_context {
            map.insert("block_size".to_owned(), context.into());
        }
        Ok(map)
    }

    fn generation_json(&self) -> Map<String, Value> {
        let mut map = self.generation.to_json();
        // Wherever they stood, they have a place here.
        if let Some(bos) = self.config.bos_token_id {
            map.insert("bos_token_id".to_owned(), bos.into());
        }
        match self.config.eos_token_ids[..] {
            [] => {}
            [eos] => drop(map.insert("eos_token_id".to_owned(), eos.into())),
            ref several => drop(map.insert("eos_token_id".to_owned(), several.into())),
        }
        map
    }

    /// The model card.
    fn card(&self, name: &str, tensors: &[Output]) -> String {
        let config = &self.config;
        let types: Vec<String> = [Dtype::I8, Dtype::F16, Dtype::BF16, Dtype::F32]
            .into_iter()
            .filter(|&dtype| tensors.iter().any(|output| output.dtype == dtype && output.is_weight()))
            .map(|dtype| dtype.to_string())
            .collect();
        let freqs = self.frequencies;
        let context = config.trained_context.map_or("not declared".to_owned(), |context| format!("{context} tokens"));
        let source = match self.source {
            Some((format, layout)) => format!("{format}, {layout}"),
            None => "made in memory".to_owned(),
        };
        format!(
            "---\nlibrary_name: bdh-gpu\ntags: [bdh, text-generation]\n---\n\n# {name}\n\n\
             A Baby Dragon Hatchling (BDH, arXiv 2509.26507) language model of {} parameters.\n\n\
             | | |\n| --- | --- |\n\
             | architecture | {} layers sharing one set of weights, width {}, {} heads, {} neurons per head |\n\
             | vocabulary | {} tokens; {} |\n\
             | weights | {}; rotary frequencies {freqs} |\n\
             | state | {} numbers, whatever the length of the text |\n\
             | trained context | {context} |\n\
             | converted from | {} ({source}) |\n\n\
             ```python\nfrom bdh_gpu import BDH\n\nprint(BDH.from_pretrained(\"{name}\").generate_text(\"...\"))\n```\n",
            config.parameters(),
            config.n_layer,
            config.n_embd,
            config.n_head,
            config.neurons_per_head,
            config.vocab_size,
            self.tokenizer,
            types.join(" and "),
            config.state_len(),
            self.name,
        )
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A tensor to write, and as what.
struct Output {
    name: String,
    tensor: Tensor,
    dtype: Dtype,
}

impl Output {
    /// Whether it is neither scales nor frequencies.
    fn is_weight(&self) -> bool {
        !self.name.ends_with(SCALES) && self.name != "attn.freqs"
    }
}

/// Why a file was not written.
enum WriteError {
    Io(io::Error),
    Overflow(ModelError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn write_safetensors(tensors: &[Output], file: &mut impl Write) -> Result<(), WriteError> {
    const BLOCK: usize = 4096;
    const ALIGNMENT: usize = 8;
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut end = 0;
    for Output { name, tensor, dtype } in tensors {
        let begin = end;
        end += tensor.len() * dtype.size();
        let spelled = match dtype {
            Dtype::I8 => "I8".to_owned(),
            floats => floats.to_string().to_uppercase(),
        };
        let info = json!({ "dtype": spelled, "shape": tensor.shape(), "data_offsets": [begin, end] });
        header.insert(name.clone(), info);
    }
    let mut header = Value::from(header).to_string();
    // Spaces at the end let the data begin at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(ALIGNMENT) - header.len()));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;

    let mut values = [0.0; BLOCK];
    let mut bytes = Vec::with_capacity(BLOCK * 4);
    let mut codes = [0; BLOCK];
    for Output { name, tensor, dtype } in tensors {
        let scales = if *dtype == Dtype::I8 { tensor.eight_bit_scales() } else { Vec::new() };
        for start in (0..tensor.len()).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(tensor.len() - start)];
            tensor.read(start, values);
            bytes.clear();
            let finite = match dtype {
                Dtype::F16 => values.iter().all(|&value| {
                    let half = f16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.is_finite()
                }),
                Dtype::BF16 => values.iter().all(|&value| {
                    let brain = bf16::from_f32(value);
                    bytes.extend(brain.to_le_bytes());
                    brain.is_finite()
                }),
                Dtype::F32 => {
                    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    true
                }
                Dtype::I8 => {
                    let codes = &mut codes[..values.len()];
                    tensor.read_codes(start, &scales, values, codes);
                    bytes.extend(codes.iter().map(|code| code.cast_unsigned()));
                    true
                }
                Dtype::F64 => {
                    bytes.extend(values.iter().flat_map(|value| f64::from(*value).to_le_bytes()));
                    true
                }
            };
            if !finite {
                let place = bytes.len() / dtype.size() - 1;
                return Err(WriteError::Overflow(ModelError::Overflow {
                    tensor: name.clone(),
                    index: tensor.index(start + place),
                    value: values[place],
                    dtype: *dtype,
                }));
            }
            file.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// A directory that is being made, under another name until it is complete.
struct Target {
    path: PathBuf,
    temporary: PathBuf,
    /// What is there and is to be replaced.
    replaces: bool,
}

impl Target {
    fn new(path: &Path, overwrite: bool) -> Result<Self, ModelError> {
        let error = |reason: &str| Err(ModelError::Save { path: path.to_owned(), reason: reason.to_owned() });
        let Some(name) = path.file_name() else {
            return error("is no name for a new directory");
        };
        let replaces = match fs::symlink_metadata(path) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => false,
            Err(reason) => return error(&reason.to_string()),
            Ok(metadata) if !metadata.is_dir() => return error("is there already and is no directory"),
            Ok(_) if is_empty(path) => true,
            Ok(_) if !overwrite => return Err(ModelError::Exists { path: path.to_owned() }),
            Ok(_) => match foreign_entry(path) {
                None => true,
                Some(entry) => {
                    return error(&format!("holds {entry:?}, which is no part of a model directory; choose another"));
                }
            },
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let made = fs::create_dir_all(parent).and_then(|()| fs::create_dir(&temporary));
        made.map_err(|source| ModelError::Save { path: temporary.clone(), reason: source.to_string() })?;
        Ok(Self { path: path.to_owned(), temporary, replaces })
    }

    fn json(&self, name: &str, map: Map<String, Value>) -> Result<(), ModelError> {
        self.bytes(name, format!("{:#}\n", Value::from(map)).as_bytes())
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        self.write(name, |file| Ok(file.write_all(bytes)?))
    }

    fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<(), WriteError>,
    ) -> Result<(), ModelError> {
        let path = self.temporary.join(name);
        let written = File::create_new(&path).map_err(WriteError::Io).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 16, file);
            write(&mut file)?;
            file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
            Ok(())
        });
        written.map_err(|error| match error {
            WriteError::Io(source) => ModelError::Save { path: self.path.join(name), reason: source.to_string() },
            WriteError::Overflow(error) => error,
        })
    }

    /// Puts the directory in its place.
    fn commit(self) -> Result<(), ModelError> {
        let error = |source: io::Error| ModelError::Save { path: self.path.clone(), reason: source.to_string() };
        if !self.replaces {
            return fs::rename(&self.temporary, &self.path).map_err(error);
        }
        let old = self.temporary.with_extension("old");
        fs::rename(&self.path, &old).map_err(error)?;
        if let Err(source) = fs::rename(&self.temporary, &self.path) {
            let _ = fs::rename(&old, &self.path);
            return Err(error(source));
        }
        fs::remove_dir_all(&old).map_err(|source| ModelError::Save { path: old.clone(), reason: source.to_string() })
    }
}

impl Drop for Target {
    /// Leaves nothing behind where the directory did not get its place.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// The first entry of a directory that [`Model::save`] would not have written.
fn foreign_entry(directory: &Path) -> Option<String> {
    use super::tokenizer_files::{TOKENIZER, TOKENIZER_CONFIG};
    const OWN: [&str; 7] =
        [CONFIG, WEIGHTS_FILE, GENERATION_CONFIG, TRAINING_ARGS, TOKENIZER, TOKENIZER_CONFIG, README];
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !OWN.contains(&name.as_str())).min()
}
