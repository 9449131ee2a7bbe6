//! Weight matrices as they lie in memory.

use crate::blocks::BlockFormat;
use crate::element::{Element, widen_bf16};
use crate::simd::Format;

/// Most different formats in which the rows of one matrix are stored.
const BANDS_MAX: usize = 4;
/// Bands begin on a cache line.
const BAND_ALIGNMENT: usize = 64;

/// How a row of weights is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// One number after the other.
    Numbers(Element),
    /// In blocks.
    Blocks(BlockFormat),
}

impl From<Element> for WeightFormat {
    fn from(element: Element) -> Self {
        Self::Numbers(element)
    }
}

impl From<BlockFormat> for WeightFormat {
    fn from(format: BlockFormat) -> Self {
        Self::Blocks(format)
    }
}

impl WeightFormat {
    /// Numbers that are stored together: rows have whole multiples of them.
    pub const fn unit(self) -> usize {
        match self {
            Self::Numbers(_) => 1,
            Self::Blocks(format) => format.numbers(),
        }
    }

    /// Bytes of `numbers` numbers, which are whole units.
    pub const fn bytes_of(self, numbers: usize) -> usize {
        match self {
            Self::Numbers(element) => numbers * element.bytes(),
            Self::Blocks(format) => numbers / format.numbers() * format.bytes(),
        }
    }

    /// Alignment that rows want.
    const fn alignment(self) -> usize {
        match self {
            Self::Numbers(element) => element.bytes(),
            Self::Blocks(_) => 1,
        }
    }

    /// Widens stored numbers to f32, all of `out`.
    #[inline(always)]
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::Numbers(Element::BF16) => {
                for (out, bits) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = widen_bf16(u16::from_le_bytes(*bits));
                }
            }
            Self::Numbers(element) => {
                for (index, out) in out.iter_mut().enumerate() {
                    *out = element.read(bytes, index);
                }
            }
            Self::Blocks(format) => format.widen(bytes, out),
        }
    }
}

/// The formats of a matrix, for consecutive rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    bands: [(usize, WeightFormat); BANDS_MAX],
    len: usize,
}

/// Rows of one format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BandPlace {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) format: WeightFormat,
    /// First byte.
    pub(crate) offset: usize,
}

impl Bands {
    /// All rows in one format.
    pub fn one(rows: usize, format: impl Into<WeightFormat>) -> Self {
        Self {
            bands: [(rows, format.into()); BANDS_MAX],
            len: 1,
        }
    }

    /// Parts of a stacked matrix (rows and their format), top first. Neighbours of one format
    /// become one; `None` if more than four bands remain.
    pub fn stacked(parts: impl IntoIterator<Item = (usize, WeightFormat)>) -> Option<Self> {
        let mut stacked: Option<Self> = None;
        for (rows, format) in parts {
            let Some(bands) = &mut stacked else {
                stacked = Some(Self::one(rows, format));
                continue;
            };
            let last = &mut bands.bands[bands.len - 1];
            if last.1 == format {
                last.0 += rows;
            } else {
                *bands.bands.get_mut(bands.len)? = (rows, format);
                bands.len += 1;
            }
        }
        stacked
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.bands[..self.len].iter().map(|(rows, _)| rows).sum()
    }

    /// Bytes of a matrix with rows of `columns` numbers.
    pub fn bytes(&self, columns: usize) -> usize {
        let last = self.places(columns).last();
        last.map_or(0, |band| {
            band.offset + band.rows * band.format.bytes_of(columns)
        })
    }

    /// First byte and length of some rows, which are of one format.
    pub fn row_range(&self, columns: usize, first: usize, rows: usize) -> std::ops::Range<usize> {
        let band = self.band_of(columns, first);
        assert!(
            first + rows <= band.first_row + band.rows,
            "rows of one band"
        );
        let row_bytes = band.format.bytes_of(columns);
        let start = band.offset + (first - band.first_row) * row_bytes;
        start..start + rows * row_bytes
    }

    pub(crate) fn places(&self, columns: usize) -> impl Iterator<Item = BandPlace> {
        let (mut first_row, mut end) = (0, 0_usize);
        self.bands
            .into_iter()
            .take(self.len)
            .map(move |(rows, format)| {
                let place = BandPlace {
                    first_row,
                    rows,
                    format,
                    offset: end.next_multiple_of(BAND_ALIGNMENT),
                };
                first_row += rows;
                end = place.offset + rows * format.bytes_of(columns);
                place
            })
    }

    fn band_of(&self, columns: usize, row: usize) -> BandPlace {
        let found = self
            .places(columns)
            .find(|band| row < band.first_row + band.rows);
        found.expect("a row of the matrix")
    }
}

/// A weight matrix `[rows, columns]` in its stored formats.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    bytes: &'a [u8],
    bands: Bands,
    rows: usize,
    columns: usize,
}

impl<'a> WeightView<'a> {
    /// A view of exactly `rows * columns` numbers in one format, aligned as that wants it.
    pub fn new(
        format: impl Into<WeightFormat>,
        bytes: &'a [u8],
        rows: usize,
        columns: usize,
    ) -> Self {
        Self::stacked(Bands::one(rows, format), bytes, columns)
    }

    /// A view of rows in several formats.
    pub fn stacked(bands: Bands, bytes: &'a [u8], columns: usize) -> Self {
        assert_eq!(
            bytes.len(),
            bands.bytes(columns),
            "bytes of a weight matrix"
        );
        for band in bands.places(columns) {
            assert!(
                columns.is_multiple_of(band.format.unit()),
                "rows of a weight matrix are whole blocks"
            );
            let aligned = bytes.as_ptr() as usize % band.format.alignment();
            assert_eq!(aligned, 0, "alignment of a weight matrix");
        }
        Self {
            bytes,
            bands,
            rows: bands.rows(),
            columns,
        }
    }

    /// All rows, one after the other.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number format. Panics if rows are stored in blocks or in several formats.
    pub fn element(&self) -> Element {
        match self.bands.bands[0].1 {
            WeightFormat::Numbers(element) if self.bands.len == 1 => element,
            _ => panic!("weights that are not in one number format"),
        }
    }

    /// Whether any row is in this number format.
    pub fn contains(&self, element: Element) -> bool {
        let bands = &self.bands.bands[..self.bands.len];
        bands.iter().any(|(_, format)| *format == element.into())
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The stored bytes of one row.
    pub fn row_bytes(&self, row: usize) -> &'a [u8] {
        &self.bytes[self.bands.row_range(self.columns, row, 1)]
    }

    /// One number, widened. For references.
    pub fn read(&self, row: usize, column: usize) -> f32 {
        let format = self.bands.band_of(self.columns, row).format;
        let (unit, within) = (format.unit(), column % format.unit());
        let bytes = &self.row_bytes(row)[format.bytes_of(column - within)..];
        let mut numbers = [0.0; 256];
        format.widen(&bytes[..format.bytes_of(unit)], &mut numbers[..unit]);
        numbers[within]
    }

    /// Some rows, which are of one format.
    pub fn part(&self, first: usize, rows: usize) -> Self {
        let format = self.bands.band_of(self.columns, first).format;
        let bytes = &self.bytes[self.bands.row_range(self.columns, first, rows)];
        Self::new(format, bytes, rows, self.columns)
    }

    /// Widens one row. Not for products, which widen less at a time.
    #[inline(always)]
    pub fn widen_row(&self, row: usize, out: &mut [f32]) {
        let band = self.bands.band_of(self.columns, row);
        band.format.widen(self.row_bytes(row), out);
    }

    /// The parts of different formats.
    pub(super) fn bands(&self) -> impl Iterator<Item = BandView<'a>> {
        let (bytes, columns) = (self.bytes, self.columns);
        self.bands.places(columns).map(move |place| BandView {
            format: place.format,
            bytes: &bytes[place.offset..][..place.rows * place.format.bytes_of(columns)],
            first_row: place.first_row,
            rows: place.rows,
            columns,
        })
    }
}

/// The rows of one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct BandView<'a> {
    pub(super) format: WeightFormat,
    bytes: &'a [u8],
    /// The first one's number in the matrix.
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<'a> BandView<'a> {
    /// The stored bytes of one row, counted within the band.
    #[inline(always)]
    pub(super) fn row_bytes(&self, row: usize) -> &'a [u8] {
        let len = self.format.bytes_of(self.columns);
        &self.bytes[row * len..][..len]
    }

    /// The stored numbers of one row; `F` must be the band's format.
    #[inline(always)]
    pub(super) fn row<F: Format>(&self, row: usize) -> *const F::Raw {
        debug_assert_eq!(
            size_of::<F::Raw>(),
            self.format.alignment(),
            "a format of plain numbers"
        );
        self.row_bytes(row).as_ptr().cast()
    }
}
