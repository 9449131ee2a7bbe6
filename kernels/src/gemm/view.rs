//! Weight matrices as they lie in memory.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::element::{Element, widen_bf16};
use crate::formats::BlockFormat;
use crate::panels::{self, Arithmetic, PANEL_ROWS};
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

impl fmt::Display for WeightFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(element) => write!(formatter, "{element:?}"),
            Self::Blocks(format) => formatter.write_str(format.facts().name),
        }
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

    /// Brings rows of `columns` numbers, the first of which begin a panel, into the order of [`Bands::arranged`]. `out`
    /// is what [`Bands::own_range`] has for them, and zero where rows are missing to a whole panel.
    pub fn arrange(self, columns: usize, rows: &[u8], out: &mut [u8]) {
        panels::arrange_rows(self, columns, rows, out);
    }
}

/// The formats of a matrix, for consecutive rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    bands: [Band; BANDS_MAX],
    len: usize,
}

/// Rows of one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    pub rows: usize,
    pub format: WeightFormat,
    pub arrangement: Arrangement,
}

/// Where the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// One after the other.
    Rows,
    /// In [`panels`], of which the first begins with some rows that do not count.
    Panels { skipped: usize },
}

impl Band {
    pub fn bytes(&self, columns: usize) -> usize {
        let rows = match self.arrangement {
            Arrangement::Rows => self.rows,
            Arrangement::Panels { skipped } => (skipped + self.rows).next_multiple_of(PANEL_ROWS),
        };
        rows * self.format.bytes_of(columns)
    }

    /// How products with the rows are computed, if they lie in panels.
    fn arithmetic(&self) -> Option<Arithmetic> {
        match self.arrangement {
            Arrangement::Rows => None,
            Arrangement::Panels { .. } => panels::arithmetic(self.format),
        }
    }

    fn arranged(self, columns: usize) -> Self {
        let possible = panels::can_arrange(self.format, columns);
        if self.arrangement == Arrangement::Rows && possible {
            let arrangement = Arrangement::Panels { skipped: 0 };
            return Self {
                arrangement,
                ..self
            };
        }
        self
    }
}

/// Rows of one format within a matrix.
#[derive(Clone, Copy, Debug)]
pub struct BandPlace {
    pub first_row: usize,
    pub band: Band,
    /// First byte.
    pub offset: usize,
}

impl Bands {
    /// All rows in one format.
    pub fn one(rows: usize, format: impl Into<WeightFormat>) -> Self {
        Self::of(Band {
            rows,
            format: format.into(),
            arrangement: Arrangement::Rows,
        })
    }

    /// All rows in one band.
    pub fn of(band: Band) -> Self {
        Self {
            bands: [band; BANDS_MAX],
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
            if last.format == format {
                last.rows += rows;
            } else {
                *bands.bands.get_mut(bands.len)? = Self::one(rows, format).bands[0];
                bands.len += 1;
            }
        }
        stacked
    }

    /// The same with panels where formats and the rows' length allow it.
    pub fn arranged(mut self, columns: usize) -> Self {
        for band in &mut self.bands[..self.len] {
            *band = band.arranged(columns);
        }
        self
    }

    /// In words, where each number is.
    pub(crate) fn layout(&self) -> String {
        let bands = self.bands[..self.len].iter().map(|band| {
            let pieces = panels::layout(band.format);
            let Band {
                rows, arrangement, ..
            } = band;
            format!("{rows} {} {arrangement:?} {pieces:?}", band.format)
        });
        bands.collect::<Vec<_>>().join("; ")
    }

    /// Of rows that are all of one format.
    pub(crate) fn only(&self) -> Band {
        assert_eq!(self.len, 1, "rows of one format");
        self.bands[0]
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.bands[..self.len].iter().map(|band| band.rows).sum()
    }

    /// Bytes of a matrix with rows of `columns` numbers.
    pub fn bytes(&self, columns: usize) -> usize {
        let last = self.places(columns).last();
        last.map_or(0, |place| place.offset + place.band.bytes(columns))
    }

    /// First byte and length of some rows, which are of one format and follow one another.
    pub fn row_range(&self, columns: usize, first: usize, rows: usize) -> Range<usize> {
        let place = self.place_of(columns, first);
        assert!(
            first + rows <= place.first_row + place.band.rows,
            "rows of one band"
        );
        assert_eq!(place.band.arrangement, Arrangement::Rows, "bytes of rows");
        let row_bytes = place.band.format.bytes_of(columns);
        let start = place.offset + (first - place.first_row) * row_bytes;
        start..start + rows * row_bytes
    }

    /// First byte and length of some rows, which are of one format and follow one another, and whether they lie in
    /// panels. `None` if these have other rows as well.
    pub fn own_range(
        &self,
        columns: usize,
        first: usize,
        rows: usize,
    ) -> Option<(Range<usize>, bool)> {
        let place = self.place_of(columns, first);
        if place.band.arrangement == Arrangement::Rows {
            return Some((self.row_range(columns, first, rows), false));
        }
        let first = first - place.first_row;
        let (end, panel_end) = (first + rows, (first + rows).next_multiple_of(PANEL_ROWS));
        let is_own =
            first.is_multiple_of(PANEL_ROWS) && (end == panel_end || end == place.band.rows);
        let row_bytes = place.band.format.bytes_of(columns);
        let range = place.offset + first * row_bytes..place.offset + panel_end * row_bytes;
        is_own.then_some((range, true))
    }

    /// Where each band's rows and bytes lie.
    pub fn places(&self, columns: usize) -> impl Iterator<Item = BandPlace> + use<> {
        let (mut first_row, mut end) = (0, 0_usize);
        self.bands.into_iter().take(self.len).map(move |band| {
            let place = BandPlace {
                first_row,
                band,
                offset: end.next_multiple_of(BAND_ALIGNMENT),
            };
            first_row += band.rows;
            end = place.offset + band.bytes(columns);
            place
        })
    }

    fn place_of(&self, columns: usize, row: usize) -> BandPlace {
        let found = self
            .places(columns)
            .find(|place| row < place.first_row + place.band.rows);
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
        for place in bands.places(columns) {
            assert!(
                columns.is_multiple_of(place.band.format.unit()),
                "rows of a weight matrix are whole blocks"
            );
            let aligned = bytes.as_ptr() as usize % place.band.format.alignment();
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
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        let mut bands = self.bands.bands[..self.bands.len].iter();
        if bands.all(|band| band.arrangement == Arrangement::Rows) {
            return Cow::Borrowed(self.bytes);
        }
        let rows = (0..self.rows).flat_map(|row| self.row_bytes(row).into_owned());
        Cow::Owned(rows.collect())
    }

    /// Number format. Panics if rows are stored in blocks or in several formats.
    pub fn element(&self) -> Element {
        match self.bands.bands[0].format {
            WeightFormat::Numbers(element) if self.bands.len == 1 => element,
            _ => panic!("weights that are not in one number format"),
        }
    }

    /// Rows of one format that follow one another, and that format.
    pub fn formats(&self) -> impl Iterator<Item = (Range<usize>, WeightFormat)> + use<> {
        self.bands.places(self.columns).map(|place| {
            let rows = place.first_row..place.first_row + place.band.rows;
            (rows, place.band.format)
        })
    }

    /// Whether any row is in this number format.
    pub fn contains(&self, element: Element) -> bool {
        let bands = &self.bands.bands[..self.bands.len];
        bands.iter().any(|band| band.format == element.into())
    }

    /// How products with this row are computed, if it lies in a panel.
    pub fn arithmetic(&self, row: usize) -> Option<Arithmetic> {
        self.bands.place_of(self.columns, row).band.arithmetic()
    }

    /// Whether products with any row are computed so.
    pub(super) fn needs(&self, arithmetic: Arithmetic) -> bool {
        let bands = &self.bands.bands[..self.bands.len];
        bands
            .iter()
            .any(|band| band.arithmetic() == Some(arithmetic))
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
    pub fn row_bytes(&self, row: usize) -> Cow<'a, [u8]> {
        let place = self.bands.place_of(self.columns, row);
        let Arrangement::Panels { skipped } = place.band.arrangement else {
            return Cow::Borrowed(&self.bytes[self.bands.row_range(self.columns, row, 1)]);
        };
        let panels = &self.bytes[place.offset..][..place.band.bytes(self.columns)];
        let mut bytes = vec![0; place.band.format.bytes_of(self.columns)];
        panels::read_row(
            place.band.format,
            panels,
            skipped + row - place.first_row,
            &mut bytes,
        );
        Cow::Owned(bytes)
    }

    /// One number, widened. For references.
    pub fn read(&self, row: usize, column: usize) -> f32 {
        let mut numbers = vec![0.0; self.columns];
        self.widen_row(row, &mut numbers);
        numbers[column]
    }

    /// Some rows, which are of one format.
    pub fn part(&self, first: usize, rows: usize) -> Self {
        let place = self.bands.place_of(self.columns, first);
        let Arrangement::Panels { skipped } = place.band.arrangement else {
            let bytes = &self.bytes[self.bands.row_range(self.columns, first, rows)];
            return Self::new(place.band.format, bytes, rows, self.columns);
        };
        assert!(
            first + rows <= place.first_row + place.band.rows,
            "rows of one band"
        );
        let first = skipped + first - place.first_row;
        let band = Band {
            rows,
            arrangement: Arrangement::Panels {
                skipped: first % PANEL_ROWS,
            },
            ..place.band
        };
        let start = first / PANEL_ROWS * PANEL_ROWS * band.format.bytes_of(self.columns);
        let bytes = &self.bytes[place.offset + start..][..band.bytes(self.columns)];
        Self::stacked(Bands::of(band), bytes, self.columns)
    }

    /// Widens one row. Not for products, which widen less at a time.
    #[inline(always)]
    pub fn widen_row(&self, row: usize, out: &mut [f32]) {
        let band = self.bands.place_of(self.columns, row).band;
        band.format.widen(&self.row_bytes(row), out);
    }

    /// The parts of different formats.
    pub(super) fn bands(&self) -> impl Iterator<Item = BandView<'a>> {
        let (bytes, columns) = (self.bytes, self.columns);
        self.bands.places(columns).map(move |place| BandView {
            band: place.band,
            bytes: &bytes[place.offset..][..place.band.bytes(columns)],
            first_row: place.first_row,
            columns,
        })
    }
}

/// The rows of one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct BandView<'a> {
    pub(super) band: Band,
    bytes: &'a [u8],
    /// The first one's number in the matrix.
    pub(super) first_row: usize,
    pub(super) columns: usize,
}

impl<'a> BandView<'a> {
    /// The stored bytes of one row, counted within the band.
    #[inline(always)]
    pub(super) fn row_bytes(&self, row: usize) -> &'a [u8] {
        let len = self.band.format.bytes_of(self.columns);
        &self.bytes[row * len..][..len]
    }

    /// If the rows lie in panels, how many rows of the first one do not count.
    #[inline(always)]
    pub(super) fn skipped(&self) -> Option<usize> {
        match self.band.arrangement {
            Arrangement::Rows => None,
            Arrangement::Panels { skipped } => Some(skipped),
        }
    }

    /// How products are computed, if the rows lie in panels.
    pub(super) fn arithmetic(&self) -> Option<Arithmetic> {
        self.band.arithmetic()
    }

    /// The panel with this number.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &'a [u8] {
        let len = PANEL_ROWS * self.band.format.bytes_of(self.columns);
        &self.bytes[panel * len..][..len]
    }

    /// The stored numbers of one row; `F` must be the band's format.
    #[inline(always)]
    pub(super) fn row<F: Format>(&self, row: usize) -> *const F::Raw {
        debug_assert_eq!(
            size_of::<F::Raw>(),
            self.band.format.alignment(),
            "a format of plain numbers"
        );
        self.row_bytes(row).as_ptr().cast()
    }
}
