//! Places for flows, with ids that are valid as long as the flow.

/// The id of a flow in its table. That of a flow that has ended is never that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    index: u32,
    generation: u32,
}

impl FlowId {
    /// Returns the place of the flow, which another has after its end.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the id as a number.
    pub fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Returns the id of a number.
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Values at places that are used again.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Returns the value of that id.
    pub fn get(&self, id: FlowId) -> Option<&T> {
        let (generation, value) = self.places.get(id.index())?;
        value.as_ref().filter(|_| *generation == id.generation)
    }

    /// Returns the value of that id.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(id.index())?;
        value.as_mut().filter(|_| *generation == id.generation)
    }

    /// Returns the id of the value at a place.
    pub fn id(&self, index: u32) -> Option<FlowId> {
        let (generation, value) = self.places.get(index as usize)?;
        value.is_some().then_some(FlowId { index, generation: *generation })
    }

    /// Stores a value.
    pub fn insert(&mut self, value: T) -> FlowId {
        if let Some(index) = self.free.pop()
            && let Some((generation, place)) = self.places.get_mut(index as usize)
        {
            *place = Some(value);
            return FlowId { index, generation: *generation };
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(value)));
        FlowId { index, generation: 0 }
    }

    /// Removes the value of that id.
    pub fn remove(&mut self, id: FlowId) -> Option<T> {
        let (generation, place) = self.places.get_mut(id.index())?;
        if *generation != id.generation {
            return None;
        }
        let value = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// Returns all ids.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> {
        (0..)
            .zip(&self.places)
            .filter(|(_, (_, value))| value.is_some())
            .map(|(index, (generation, _))| FlowId { index, generation: *generation })
    }
}
