//! Matrix products on the tensor cores: how they are cut into pieces, and their launch.
//!
//! Nothing that is decided here changes a result: see `kernels/cuda/product.cuh`.

use backstop_kernels::Element;

use super::device::{Device, DeviceError, DevicePointer, Grid, KernelArgs, Stream};
use super::layout::{TILE_ROWS, TiledMatrix};

/// Pieces of work that keep the card's multiprocessors busy when weights are streamed from memory.
const PIECES_WANTED: usize = 200;
/// Panels below which a run is not worth a block.
const RUN_PANELS_MIN: usize = 4;
/// Parts of one product at most: somebody has to add them up.
const PARTS_MAX: usize = 8;
/// Tokens up to which runs are computed side by side.
const PARTS_TOKENS_MAX: usize = 64;

/// What becomes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// f32 `[part][token][row]`.
    Parts,
    /// BF16 `[token][row]`.
    Bf16,
    /// `silu(gate) * up` as BF16 `[token][width]`.
    Swiglu,
    /// The same in panels.
    SwigluPanels,
}

/// Tiles of the matrix's rows.
fn row_tiles(matrix: &TiledMatrix) -> usize {
    matrix.padded_rows() / TILE_ROWS
}

/// The panels that are summed as one run. A function of the weights' shape alone, so that results
/// depend on nothing else.
pub fn run_panels(matrix: &TiledMatrix) -> usize {
    let panels = matrix.panels();
    if matrix.element == Element::F8E4M3 {
        // The tensor cores keep too few bits of long sums of E4M3 products (DeepSeek-V3 technical
        // report, section 3.3.2): 128 products, then f32.
        return 1;
    }
    let wanted = PIECES_WANTED.div_ceil(row_tiles(matrix)).min(PARTS_MAX);
    panels.div_ceil(wanted).max(RUN_PANELS_MIN).min(panels)
}

/// Parts in which a product of this many tokens is computed with [`Epilogue::Parts`].
pub fn parts(matrix: &TiledMatrix, tokens: usize) -> usize {
    if tokens > PARTS_TOKENS_MAX || matrix.element == Element::F8E4M3 {
        return 1;
    }
    matrix.panels().div_ceil(run_panels(matrix))
}

/// Tokens of a tile for a product of `tokens` tokens.
pub fn token_tile(tokens: usize) -> usize {
    tokens.next_power_of_two().clamp(8, 128)
}

/// Tokens of a tile when `slots` pairs are spread over `experts` experts: most experts' pairs
/// should fit in one tile, so that their weights are read once.
pub fn grouped_token_tile(slots: usize, experts: usize) -> usize {
    token_tile((slots * 5).div_ceil(experts * 4))
}

/// The kernel's argument.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ProductArgs {
    weights: DevicePointer,
    input: DevicePointer,
    weight_scales: DevicePointer,
    input_scales: DevicePointer,
    output: DevicePointer,
    bias: DevicePointer,
    tiles: DevicePointer,
    num_tiles: DevicePointer,
    part_stride: u64,
    row_tiles: i32,
    rows: i32,
    panels: i32,
    run_panels: i32,
    parts: i32,
    tokens: i32,
    capacity: i32,
    epilogue: i32,
    scale: f32,
    unused: i32,
}

const _: () = assert!(size_of::<ProductArgs>() == 112);

// SAFETY: pointers, then numbers, without padding.
unsafe impl KernelArgs for ProductArgs {}

/// Weights on the device: one tiled matrix, or one for each expert.
#[derive(Clone, Copy, Debug)]
pub struct ProductWeights {
    /// The matrices, one after the other.
    pub data: DevicePointer,
    /// One f32 for each padded row of each matrix, for E4M3 weights.
    pub scales: DevicePointer,
    /// One f32 for each row, which is added to the product with a BF16 matrix; null if there is
    /// none.
    pub bias: DevicePointer,
    /// Shape of each matrix.
    pub matrix: TiledMatrix,
}

/// Activations in panels.
#[derive(Clone, Copy, Debug)]
pub struct ProductInput {
    /// The panels.
    pub panels: DevicePointer,
    /// One f32 for each row, for E4M3 activations.
    pub scales: DevicePointer,
    /// Rows for which there is room; at least a token tile more than the last row that counts.
    pub capacity: usize,
}

/// Which rows of the input are multiplied with which matrix.
#[derive(Clone, Copy, Debug)]
pub enum ProductTokens {
    /// The first so many rows, with the only matrix.
    All(usize),
    /// What a list of token tiles in device memory says.
    Grouped {
        /// The list.
        tiles: DevicePointer,
        /// Its length, a u32.
        num_tiles: DevicePointer,
        /// Token tiles at most.
        num_tiles_max: usize,
        /// Tokens of a tile.
        token_tile: usize,
    },
}

/// A product.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// First factor.
    pub weights: ProductWeights,
    /// Second factor.
    pub input: ProductInput,
    /// Which rows.
    pub tokens: ProductTokens,
    /// What becomes of the sums.
    pub epilogue: Epilogue,
    /// Parts of [`Epilogue::Parts`], 1 or what [`parts`] says; 1 for the others.
    pub parts: usize,
    /// Where they go.
    pub output: DevicePointer,
    /// Factor on the sums of [`Epilogue::Parts`].
    pub scale: f32,
}

impl Product {
    /// Queues the product.
    ///
    /// # Safety
    ///
    /// All pointers are valid for the shapes given.
    pub unsafe fn launch(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        let matrix = &self.weights.matrix;
        let (token_tile, tiles, num_tiles, num_tiles_max, tokens) = match self.tokens {
            ProductTokens::All(tokens) => {
                let tile = token_tile(tokens);
                let none = DevicePointer::NULL;
                (tile, none, none, tokens.div_ceil(tile), tokens)
            }
            ProductTokens::Grouped {
                tiles,
                num_tiles,
                num_tiles_max,
                token_tile,
            } => (token_tile, tiles, num_tiles, num_tiles_max, 0),
        };
        if num_tiles_max == 0 {
            return Ok(());
        }
        let parts = self.parts;
        assert!(
            parts == 1 || self.epilogue == Epilogue::Parts && parts == self::parts(matrix, tokens),
            "parts of a product"
        );
        let takes_bias = matrix.element == Element::BF16
            && !matrix.gate_up
            && matches!(self.tokens, ProductTokens::All(_));
        assert!(
            takes_bias || self.weights.bias == DevicePointer::NULL,
            "a bias is added to plain products with BF16 weights only"
        );
        let rows = if matrix.gate_up {
            matrix.width()
        } else {
            matrix.rows
        };
        assert!(
            self.epilogue == Epilogue::Parts || rows.is_multiple_of(2),
            "a BF16 output has an even number of columns"
        );
        let args = ProductArgs {
            weights: self.weights.data,
            input: self.input.panels,
            weight_scales: self.weights.scales,
            input_scales: self.input.scales,
            output: self.output,
            bias: self.weights.bias,
            tiles,
            num_tiles,
            part_stride: (tokens * rows) as u64,
            row_tiles: row_tiles(matrix) as i32,
            rows: rows as i32,
            panels: matrix.panels() as i32,
            run_panels: run_panels(matrix) as i32,
            parts: parts as i32,
            tokens: tokens as i32,
            capacity: self.input.capacity as i32,
            epilogue: self.epilogue as i32,
            scale: self.scale,
            unused: 0,
        };
        let launch = Launch::of(token_tile);
        let row_groups = row_tiles(matrix).div_ceil(launch.warpgroups);
        let pieces = row_groups * parts * num_tiles_max;
        let resident = launch.blocks * device.facts().multiprocessors as usize;
        let threads = launch.warpgroups as u32 * 128 + 32;
        let grid =
            Grid::line(pieces.min(resident), threads).shared(launch.shared_bytes(token_tile));
        let kernel = kernel_name(matrix.element, token_tile);
        // SAFETY: the caller's promise; the struct is the kernel's.
        unsafe { device.launch(stream, kernel, grid, &args) }
    }
}

/// The constants of `Shape` in `product.cuh`.
struct Launch {
    warpgroups: usize,
    blocks: usize,
    stages: usize,
}

impl Launch {
    fn of(token_tile: usize) -> Self {
        let (warpgroups, blocks, stages) = match token_tile {
            128 => (2, 1, 6),
            64 => (1, 2, 6),
            8 => (1, 3, 7),
            _ => (1, 3, 6),
        };
        Self {
            warpgroups,
            blocks,
            stages,
        }
    }

    fn shared_bytes(&self, token_tile: usize) -> usize {
        self.stages * (self.warpgroups * 64 * 128 + token_tile * 128 + 16)
    }
}

fn kernel_name(element: Element, token_tile: usize) -> &'static str {
    match (element, token_tile) {
        (Element::BF16, 8) => "product_bf16_8",
        (Element::BF16, 16) => "product_bf16_16",
        (Element::BF16, 32) => "product_bf16_32",
        (Element::BF16, 64) => "product_bf16_64",
        (Element::BF16, 128) => "product_bf16_128",
        (Element::F8E4M3, 8) => "product_e4m3_8",
        (Element::F8E4M3, 16) => "product_e4m3_16",
        (Element::F8E4M3, 32) => "product_e4m3_32",
        (Element::F8E4M3, 64) => "product_e4m3_64",
        (Element::F8E4M3, 128) => "product_e4m3_128",
        (element, tile) => unreachable!("no product of {element:?} with tiles of {tile} tokens"),
    }
}
